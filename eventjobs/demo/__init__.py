"""Jobs to try eventjobs with; `eventjobs serve --demo` runs them."""

from eventjobs.demo.handlers import analyze_csv, analyze_text, countdown, flaky, noop
from eventjobs.demo.llm_summary import llm_summary
from eventjobs.demo.primes import primes

HANDLERS = [analyze_csv, analyze_text, countdown, flaky, llm_summary, noop, primes]
