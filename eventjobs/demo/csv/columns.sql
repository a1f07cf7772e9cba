-- How DuckDB reads a column v of text as values of a type (NULL where a text does not fit), and
-- the statistics of such a column.

SET TimeZone = 'UTC';
SET autoinstall_known_extensions = false; -- they would come over the network
SET autoload_known_extensions = false;

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

-- From the narrowest type to the widest, which fits every text; and the one of no texts at all. A twin is a format that may fit the
-- same texts as well, with another meaning; part is the macro below for the statistics.
CREATE TABLE candidates (type VARCHAR, format VARCHAR, twin VARCHAR, sql VARCHAR, part VARCHAR);

INSERT INTO candidates VALUES
    ('boolean', NULL, NULL, 'as_boolean(v)', 'booleans'),
    ('integer', NULL, NULL, 'as_integer(v)', 'numbers'),
    ('float', NULL, NULL, 'as_float(v)', 'numbers'),
    ('integer', '1,234.5', '1234,5', 'as_grouped_integer(v, '','')', 'numbers'),
    ('float', '1,234.5', '1234,5', 'as_grouped_float(v, '','', ''.'')', 'numbers'),
    ('float', '1234,5', NULL, 'as_comma_float(v)', 'numbers'),
    ('integer', '1.234,5', NULL, 'as_grouped_integer(v, ''.'')', 'numbers'),
    ('float', '1.234,5', NULL, 'as_grouped_float(v, ''.'', '','')', 'numbers'),
    ('integer', '1 234,5', NULL, 'as_grouped_integer(v, '' \x{a0}\x{202f}'')', 'numbers'),
    ('float', '1 234,5', NULL, 'as_grouped_float(v, '' \x{a0}\x{202f}'', '','')', 'numbers'),
    ('integer', '1''234.5', NULL, 'as_grouped_integer(v, ''\x{27}\x{2019}'')', 'numbers'),
    ('float', '1''234.5', NULL, 'as_grouped_float(v, ''\x{27}\x{2019}'', ''.'')', 'numbers');

INSERT INTO candidates
SELECT type, day, twin, 'as_' || type || '(v, ''' || day || ''')', 'dates'
FROM (VALUES
    ('%Y-%m-%d', NULL), ('%Y/%m/%d', NULL), ('%d/%m/%Y', '%m/%d/%Y'), ('%m/%d/%Y', NULL),
    ('%d-%m-%Y', '%m-%d-%Y'), ('%m-%d-%Y', NULL), ('%d.%m.%Y', NULL), ('%d %b %Y', NULL),
    ('%d-%b-%Y', NULL), ('%b %d, %Y', NULL)
) AS days (day, twin), (VALUES ('date'), ('datetime')) AS types (type);

INSERT INTO candidates VALUES
    ('datetime', 'ISO 8601', NULL, 'as_iso(v)', 'dates'),
    ('datetime', 'ISO 8601, as UTC', NULL, 'as_iso_utc(v)', 'dates'),
    ('text', NULL, NULL, 'v', 'texts'),
    ('empty', NULL, NULL, 'v', NULL);

-- A number that JSON can hold, or NULL; and a text on one line, with an ellipsis where it is cut.
CREATE MACRO in_json(x) AS CASE WHEN isfinite(x) THEN x END;

CREATE MACRO one_line(text) AS trim(regexp_replace(left(text, 400), '\s+', ' ', 'g'));

CREATE MACRO clip(text, most) AS
    if(length(one_line(text)) <= most, one_line(text), left(one_line(text), most - 1) || '…');

-- The statistics of numbers, of which the infinite ones are only counted. The standard deviation is
-- that of a sample, quartiles are interpolated, and outliers are more than 1.5 interquartile ranges
-- outside the quartiles. The skewness is NULL where the cubes of numbers are beyond a DOUBLE.
CREATE MACRO numbers_of(cells) AS TABLE (
    WITH all_values AS (FROM query_table(cells)),
    finite AS (SELECT v AS exact, v::DOUBLE AS v FROM all_values WHERE isfinite(v::DOUBLE)),
    summary AS (
        SELECT
            min(exact) AS min, max(exact) AS max,
            in_json(avg(v)) AS mean, in_json(median(v)) AS median,
            in_json(stddev_samp(v)) AS std, quantile_cont(v, 0.25) AS q1, quantile_cont(v, 0.75) AS q3,
            CASE WHEN max(abs(v)) < 1e100 THEN in_json(skewness(v) FILTER (abs(v) < 1e100)) END AS skewness
        FROM finite
    ),
    reach AS (SELECT *, q3 - q1 AS reach FROM summary),
    -- Values that are far outside would make the rest of the histogram flat.
    ends AS (
        SELECT
            if(reach > 0, greatest(min::DOUBLE, q1 - 3 * reach), min::DOUBLE) AS low,
            if(reach > 0, least(max::DOUBLE, q3 + 3 * reach), max::DOUBLE) AS high
        FROM reach WHERE isfinite(4 * reach)
    ),
    -- About 20 bins, of a round width; none where they are narrower than numbers are precise.
    widths AS (
        SELECT *, (high - low) / 20 AS width, 10.0::DOUBLE ** floor(log10((high - low) / 20)) AS power
        FROM ends WHERE high - low > greatest(abs(low), abs(high)) * 1e-12
    ),
    steps AS (
        SELECT
            low, high, typeof((SELECT max FROM summary)) = 'HUGEINT' AS is_whole,
            list_min([m * power FOR m IN [1, 2, 2.5, 5, 10] IF m * power >= width * 0.999]) AS step
        FROM widths
    ),
    whole_steps AS (
        SELECT low, high, is_whole, if(is_whole, greatest(1, ceil(step)), step)::DOUBLE AS step
        FROM steps
    ),
    starts AS (SELECT *, floor(low / step) * step AS start FROM whole_steps),
    counts AS (SELECT *, (floor((high - start) / step) + 1)::BIGINT AS count FROM starts),
    -- The largest value belongs to the last bin, not to one of its own.
    bins AS (
        SELECT
            * EXCLUDE (count),
            count - (NOT is_whole AND count > 1 AND start + (count - 1) * step >= high)::BIGINT AS count
        FROM counts
    ),
    places AS (
        SELECT histogram(CASE
            WHEN NOT is_whole AND v = start + count * step THEN count - 1
            ELSE greatest(-1, least(count, floor((v - start) / step)))::BIGINT
        END) AS places
        FROM finite, bins
    )
    SELECT
        * EXCLUDE (reach),
        (SELECT count(*) FROM all_values) - (SELECT count(*) FROM finite) AS infinite,
        (
            SELECT count(*) FROM finite
            WHERE isfinite(4 * reach) AND (v < q1 - 1.5 * reach OR v > q3 + 1.5 * reach)
        ) AS outliers,
        (
            SELECT {
                'edges': [
                    round(start + i * step, greatest(0, 2 - floor(log10(step)))::INTEGER)
                    FOR i IN range(count + 1)
                ],
                'counts': [coalesce(places[i], 0) FOR i IN range(count)],
                'below': coalesce(places[-1], 0),
                'above': coalesce(places[count], 0),
                'whole': is_whole AND step = 1
            }
            FROM bins, places
        ) AS histogram
    FROM reach
);

-- Lengths in characters, and the most frequent texts.
CREATE MACRO texts_of(cells) AS TABLE (
    WITH counts AS (
        SELECT v AS value, count(*) AS count FROM query_table(cells)
        GROUP BY v ORDER BY count DESC, v LIMIT 10
    )
    SELECT
        min(length(v)) AS shortest, max(length(v)) AS longest,
        (
            SELECT list({'value': clip(value, 60), 'count': count} ORDER BY count DESC, value)
            FROM counts
        ) AS top
    FROM query_table(cells)
);

CREATE MACRO iso(moment) AS replace(replace(moment::VARCHAR, ' ', 'T'), '+00', 'Z');

CREATE MACRO dates_of(cells) AS TABLE (
    SELECT iso(min(v)) AS earliest, iso(max(v)) AS latest FROM query_table(cells)
);

CREATE MACRO booleans_of(cells) AS TABLE (
    SELECT count(*) FILTER (v) AS true, count(*) FILTER (NOT v) AS false FROM query_table(cells)
);

-- Texts that keep a column from being one of numbers, where nine of ten are.
CREATE MACRO exceptions_of(cells) AS TABLE (
    WITH wrong AS (SELECT v FROM query_table(cells) WHERE as_float(v) IS NULL),
    few AS (
        SELECT count(*) <= 0.1 * (SELECT count(*) FROM query_table(cells)) AS is_few FROM wrong
    )
    SELECT
        (
            SELECT coalesce(list(clip(v, 40)), []) FROM (SELECT v FROM wrong, few WHERE is_few LIMIT 3)
        ) AS exceptions,
        (SELECT count(*) FROM wrong, few WHERE is_few) AS exceptions_count
);
