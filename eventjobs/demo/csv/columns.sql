-- How DuckDB reads a column v of text as values of a type (NULL where a text does not fit), and
-- the statistics of such a column.

CREATE MACRO fits(v, pattern) AS regexp_full_match(v, pattern);

CREATE MACRO as_boolean(v) AS
    CASE WHEN fits(v, '(?i)true|yes|false|no') THEN lower(v) IN ('true', 'yes') END;

-- 00501 is a post code, not the number 501.
CREATE MACRO as_integer(v) AS
    CASE WHEN fits(v, '[+-]?(0|[1-9]\d{0,37})') THEN try_cast(v AS HUGEINT) END;

-- Digits that HUGEINT cannot hold stay text, so that none is lost.
CREATE MACRO as_float(v) AS
    CASE WHEN fits(v, '[+-]?(0|[1-9]\d{0,37})?([.]\d*)?([eE][+-]?\d+)?|[+-]?(?i:inf(inity)?)')
    THEN try_cast(v AS DOUBLE) END;

CREATE MACRO without(v, separator) AS regexp_replace(v, '[' || separator || ']', '', 'g');

CREATE MACRO as_grouped_integer(v, separator) AS
    CASE WHEN fits(v, '[+-]?(0|[1-9]\d{0,2}([' || separator || ']\d{3})*)')
    THEN try_cast(without(v, separator) AS HUGEINT) END;

CREATE MACRO as_grouped_float(v, separator, decimal) AS
    CASE WHEN fits(v, '[+-]?(0|[1-9]\d{0,2}([' || separator || ']\d{3})*)([' || decimal || ']\d+)?')
    THEN try_cast(replace(without(v, separator), decimal, '.') AS DOUBLE) END;

CREATE MACRO as_comma_float(v) AS
    CASE WHEN fits(v, '[+-]?(0|[1-9]\d{0,37})?(,\d+)?') AND v <> ''
    THEN try_cast(replace(v, ',', '.') AS DOUBLE) END;

CREATE MACRO has_year(v) AS fits(v, '(.*\D)?\d{4}(\D.*)?');

CREATE MACRO as_date(v, day) AS CASE WHEN has_year(v) THEN try_strptime(v, day)::DATE END;

CREATE MACRO as_datetime(v, day) AS
    CASE WHEN has_year(v) THEN try_strptime(v, [
        day || ' %H:%M:%S', day || ' %H:%M', day || ' %H:%M:%S.%f',
        day || ' %I:%M:%S %p', day || ' %I:%M %p'
    ]) END;

CREATE MACRO as_iso(v) AS
    CASE WHEN fits(v, '\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{2}(:\d{2}([.]\d+)?)?')
    THEN try_cast(v AS TIMESTAMP) END;

CREATE MACRO as_iso_utc(v) AS
    CASE WHEN fits(v, '\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{2}.*')
    THEN try_cast(v AS TIMESTAMPTZ) END;

-- From the narrowest type to the widest. A twin is a format that may fit the same texts as well,
-- with another meaning.
CREATE TABLE candidates AS
FROM (VALUES
    ('boolean', NULL, NULL, 'as_boolean(v)'),
    ('integer', NULL, NULL, 'as_integer(v)'),
    ('float', NULL, NULL, 'as_float(v)'),
    ('integer', '1,234.5', '1234,5', 'as_grouped_integer(v, '','')'),
    ('float', '1,234.5', '1234,5', 'as_grouped_float(v, '','', ''.'')'),
    ('float', '1234,5', NULL, 'as_comma_float(v)'),
    ('integer', '1.234,5', NULL, 'as_grouped_integer(v, ''.'')'),
    ('float', '1.234,5', NULL, 'as_grouped_float(v, ''.'', '','')'),
    ('integer', '1 234,5', NULL, 'as_grouped_integer(v, '' \x{a0}\x{202f}'')'),
    ('float', '1 234,5', NULL, 'as_grouped_float(v, '' \x{a0}\x{202f}'', '','')'),
    ('integer', '1''234.5', NULL, 'as_grouped_integer(v, ''\x{27}\x{2019}'')'),
    ('float', '1''234.5', NULL, 'as_grouped_float(v, ''\x{27}\x{2019}'', ''.'')')
) AS candidate (type, format, twin, sql);

INSERT INTO candidates
SELECT type, day, twin, 'as_' || type || '(v, ''' || day || ''')'
FROM (VALUES
    ('%Y-%m-%d', NULL), ('%Y/%m/%d', NULL), ('%d/%m/%Y', '%m/%d/%Y'), ('%m/%d/%Y', NULL),
    ('%d-%m-%Y', '%m-%d-%Y'), ('%m-%d-%Y', NULL), ('%d.%m.%Y', NULL), ('%d %b %Y', NULL),
    ('%d-%b-%Y', NULL), ('%b %d, %Y', NULL)
) AS days (day, twin), (VALUES ('date'), ('datetime')) AS types (type);

INSERT INTO candidates VALUES
    ('datetime', 'ISO 8601', NULL, 'as_iso(v)'),
    ('datetime', 'ISO 8601, as UTC', NULL, 'as_iso_utc(v)');

CREATE MACRO finite(v) AS CASE WHEN isfinite(v::DOUBLE) THEN v END;

-- The cubes of larger numbers are beyond a DOUBLE, and DuckDB refuses to add them up.
CREATE MACRO cubable(v) AS CASE WHEN abs(v::DOUBLE) < 1e100 THEN v::DOUBLE END;

-- The standard deviation is that of a sample; quartiles are interpolated.
CREATE MACRO numbers_of(v) AS {
    'min': min(finite(v)),
    'max': max(finite(v)),
    'mean': avg(finite(v)::DOUBLE),
    'median': median(finite(v)::DOUBLE),
    'std': stddev_samp(finite(v)::DOUBLE),
    'q1': quantile_cont(finite(v)::DOUBLE, 0.25),
    'q3': quantile_cont(finite(v)::DOUBLE, 0.75),
    'skewness': CASE WHEN count(cubable(v)) = count(finite(v)) THEN skewness(cubable(v)) END,
    'infinite': count(*) - count(finite(v))
};

CREATE MACRO texts_of(v) AS {'shortest': min(length(v)), 'longest': max(length(v))};

CREATE MACRO iso(moment) AS replace(replace(moment::VARCHAR, ' ', 'T'), '+00', 'Z');

CREATE MACRO dates_of(v) AS {'earliest': iso(min(v)), 'latest': iso(max(v))};

CREATE MACRO booleans_of(v) AS {'true': count(*) FILTER (v), 'false': count(*) FILTER (NOT v)};
