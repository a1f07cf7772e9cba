"""Profiles a CSV file: types and statistics of its columns, sentences and charts."""
