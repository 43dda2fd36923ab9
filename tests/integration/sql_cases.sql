-- Queries that are answered here and by a real PostgreSQL, one on a line, with the same result: columns, types and rows,
-- or SQLSTATE, message and position of the error.  What is read: lines that do not begin with two dashes.

-- Literals

SELECT 1, -1, 2147483647, 2147483648, -2147483648, 9223372036854775807, 9223372036854775808, 1.50, .5, 1e3, 0x1F, 1_000
SELECT 'a', 'it''s', E'a\tb\'c\\', $$dollar ' quoted$$, $x$a$$b$x$, NULL, TRUE, false
SELECT 'a' AS "A b", 1 x, 2 AS select, 3 AS "x"
SELECT /* a /* nested */ comment */ 1 -- and another
SELECT bool 't', int4 '7', numeric '1.10', interval '1 day', pg_lsn '0/3000060', text 'x', timestamptz '2026-01-02 03:04:05+00'
SELECT 'x'::text, CAST('1' AS int), '1'::int8::text, 1::numeric(5,2), 'abc'::varchar(2), 'abc'::char(2), 'abc'::name
SELECT double precision '1.5', character varying 'abc', timestamp with time zone '2026-01-02 03:04:05Z', timestamp '2026-01-02'
SELECT true::int, 0::bool, 1::bool::text, 'yes'::bool, 'off'::bool, 'T'::bool
SELECT '{1,2,NULL}'::int[], '{a,"b c",NULL,"NULL"}'::text[], ARRAY[1,2], ARRAY['a','b']
SELECT 1::oid, '4294967295'::oid, '7'::xid, '-1'::oid
SELECT ' 12 '::int, '+5'::int8, '-0'::int, '0x10'::int

-- Arithmetic

SELECT 1 + 2 * 3, (1 + 2) * 3, 7 / 2, -7 / 2, 7 % 3, -7 % 3, 2 ^ 10, - 5 + 3, 10 - 2 - 3, 2 ^ 3 ^ 2
SELECT 7 / 2.0, 1 / 3.0, 2.0 / 3, 10.0 / 4, 1e10 / 3, 0.001 / 7, 123456789.123 / 0.00001, 1048576::numeric / 1024
SELECT 1.10 + 2.2, 1.10 * 2.20, 5.5 - 5.5, 7.5 % 2, -7.5 % 2, 1.0 * 1, 0.0
SELECT 1::float8 / 3, 1e15::float8, 1e14::float8, 123456.789::float8, 0.0001::float8, 0.00001::float8, 1.0::float8, 1::float8
SELECT 1::float4 / 3, 1e6::float4, 1e5::float4, 0.1::float4, 16777216::float4, 3.4e38::float4
SELECT 'NaN'::float8, 'Infinity'::float8, '-inf'::float8, 1e300::float8 * 10, 100.5::float8::int, 101.5::float8::int, 0.5::numeric::int
SELECT 1::int2 + 1::int2, 1::int2 + 1, 1 + 1::int8, 1 + 1.0, 1 + 1::float4, 1.0 + 1::float8, 1::float4 + 1::float4
SELECT 2147483647 + 1
SELECT 9223372036854775807 + 1
SELECT 32767::int2 + 1::int2
SELECT 1 / 0
SELECT 1.0 / 0
SELECT 1::float8 / 0
SELECT 1 % 0
SELECT 3000000000::int
SELECT '3000000000'::int
SELECT 'x'::int
SELECT ''::numeric
SELECT 'abc'::float8
SELECT 1e200::float8 * 1e200::float8
SELECT 12345::numeric(4,2)
SELECT pg_lsn '0/3000060' + 1::float8
SELECT 1::float8 + pg_lsn '0/3000060'
SELECT pg_lsn '0/3000060' + 1.5, pg_lsn '0/3000060' - 1::int2, 2::int8 + pg_lsn '0/3000060'
SELECT date '2026-01-02' + 1::int8
SELECT interval '1 day' * 2::numeric, 2::int2 * interval '1 day'
SELECT -(-9223372036854775808)
SELECT - (5), + 5, @ -5
SELECT 1 + true
SELECT 'a' + 1
SELECT 1 + 'x'
SELECT '5' + 1
SELECT - 'a'::text
SELECT round(2.5), round(3.5), round(-2.5), round(2.5::float8), round(3.5::float8), round(5), round(2.345, 2), round(1234.5, -2)
SELECT round(pg_wal_lsn_diff('0/5000000', '0/3000060') / 1024 / 1024, 2), trunc(2.567, 1), trunc(-2.5), trunc(2.5::float8)
SELECT ceil(2.1), ceiling(-2.1), floor(2.9), floor(-2.1), ceil(2.1::float8), floor(3), abs(-5), abs(-5.5), abs(-5::float8)
SELECT sign(-3.2), sign(5::float8), sqrt(2::float8), sqrt(4), power(2, 10), mod(7, 3), mod(7.5, 2), div(7, 2), to_hex(255)
SELECT sqrt(-1)

-- Comparisons

SELECT 1 = 1.0, 1 < 2, 'a' < 'b', 'a' = 'a', true > false, 1 <> 2, 1 != 2, 2 >= 2, NULL = NULL, 1 = NULL
SELECT 1 = '1', '1' = 1, '0/10'::pg_lsn > '0/2', '1 day'::interval = '24:00', '1 mon'::interval = '30 days', '0/0' = '0/0'::pg_lsn
SELECT 1 IS NULL, NULL IS NULL, 1 IS NOT NULL, NULL ISNULL, 1 NOTNULL, true IS TRUE, NULL IS NOT TRUE, NULL::bool IS UNKNOWN
SELECT 1 IS DISTINCT FROM NULL, NULL IS DISTINCT FROM NULL, 1 IS NOT DISTINCT FROM 1, NULL IS NOT DISTINCT FROM 1
SELECT true AND NULL, false AND NULL, true OR NULL, false OR NULL, NOT NULL::bool, NOT true, NOT false AND false
SELECT 1 BETWEEN 0 AND 2, 3 BETWEEN 0 AND 2, 1 NOT BETWEEN 0 AND 2, 2 BETWEEN SYMMETRIC 3 AND 1, NULL BETWEEN 1 AND 2
SELECT 1 IN (1, 2), 3 IN (1, NULL), 3 NOT IN (1, 2), 'a' IN ('a', 'b'), NULL IN (1), 1 IN (1, NULL), 3 NOT IN (1, NULL)
SELECT 1 = ANY (ARRAY[1,2]), 3 = ANY ('{1,2}'), 1 <> ALL (ARRAY[2,3]), 'a' = ANY ('{a,b}'::text[]), 1 = ANY ('{2,NULL}')
SELECT 'abc' LIKE 'a%', 'abc' LIKE '_b_', 'abc' NOT LIKE 'b%', 'ABC' ILIKE 'a%c', 'a%c' LIKE 'a\%c', 'abc' LIKE '%', '' LIKE '', 'abc' LIKE 'ab'
SELECT 'abc' ~ '^a', 'abc' ~ 'c$', 'abc' ~ 'B', 'abc' ~* 'B', 'abc' !~ 'x', 'abc' !~* 'A', 'a.c' ~ 'a\.c', 'aaa' ~ '^a{2,3}$', 'ab' ~ '^(a|b)+$'
SELECT 'x9' ~ '^[a-z][0-9]$', 'x-' ~ '[^a-z0-9]', 'a b' ~ '\s', 'pg_x' ~ '^pg_', 'foo' ~ '^(foo|bar)$', 'fo' ~ 'fo?o?$', '' ~ '^$', 'ab' ~ 'a|b|'
SELECT 'a' ~ '[[:alpha:]]', '5' ~ '^[[:digit:]]+$', 'a' ~ '[]a]', '-' ~ '[a-]', 'abcabc' ~ '^(abc){2}$', 'abc' ~ '^(?:abc)$', 'B' ~* '[a-c]'
SELECT substring('user=a host=b.c port=5' from 'host=([^ ]*)'), substring('repmgr_slot_17' from 'repmgr_slot_([0-9]*)'), substring('x' from 'y')
SELECT substring('foobar' from 'o.b'), substring('foobar' from 'o(.)b'), substring('foobar', '(o+)(b)?'), substring('abc' from '')
SELECT substring('aaab' from 'a+'), substring('xaab' from 'a*'), substring('ab' from 'a|ab'), substring('abcd' from '(a|ab)(c|bcd)'), substring('aaaaba' from '(?:.)*(.*)')
SELECT substring('abc1' from '([a-z]*)([0-9]*)'), substring('aa' from '(a*)(a*)'), substring('aaaaba' from 'a*(((a|a))?)'), substring('abbbb' from '(.*)((?:b)?a|((?:.)?|.*))'), substring('aXbX' from '(?:a)(.)'), substring('b' from '(a)?b')
SELECT substring('abc' from '^b'), substring('abc' from 'c$'), substring('abc' from '^(.*)$'), substring(NULL from 'a'), substring('a' from NULL::text)
SELECT substring('ab12cd' from '[0-9]{2}'), substring('bbaabb' from '.?(.+a)b?'), substring('bbaa' from '(a?)?'), substring('xyz' from '(x|y|z)(z)')
SELECT substring('a' from '(')
SELECT 'a' OPERATOR(pg_catalog.=) 'b', 'abc' COLLATE "C" < 'b'
SELECT '7'::xid = '7'::xid, '7'::xid = 7
SELECT '7'::xid < '8'::xid
SELECT 1 = 'x'
SELECT 1 = true
SELECT now() = 1
SELECT 1 AND true
SELECT NOT 1
SELECT 1 < 2 < 3
SELECT true IS NULL = false
SELECT 'abc' ~ '('
SELECT 'abc' ~ '[a'
SELECT 'abc' ~ '*a'
SELECT 'abc' LIKE 'a\'
SELECT CASE WHEN 1 THEN 2 END
SELECT 1 WHERE 1

-- Expressions

SELECT CASE WHEN true THEN 1 ELSE 2 END, CASE 1 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, CASE WHEN false THEN 1 END, CASE WHEN true THEN 1 ELSE 2.5 END
SELECT CASE true WHEN 't' THEN 'in' ELSE 'out' END, CASE NULL WHEN NULL THEN 1 ELSE 2 END, CASE WHEN true THEN NULL ELSE 1 END
SELECT CASE WHEN true THEN 1 ELSE 1/(1-1) END, COALESCE(1, 1/(1-1))
SELECT CASE WHEN true THEN 1 ELSE 'x' END
SELECT CASE WHEN true THEN 1 ELSE true END
SELECT COALESCE(NULL, 1), COALESCE(NULL, NULL), COALESCE(NULL, 'a'), COALESCE('0/0', '0/1'::pg_lsn), COALESCE(1, 2.5)
SELECT NULLIF(1, 1), NULLIF(1, 2), NULLIF('a', 'b'), NULLIF(NULL, 1)
SELECT GREATEST(1, 2, 3), LEAST(1, NULL, 0), GREATEST('a', 'b'), GREATEST(0, NULL::numeric), GREATEST(1, 2.5), GREATEST(NULL, NULL)
SELECT GREATEST('0/1'::pg_lsn, '0/2'), LEAST('1 day'::interval, '2 hours')
SELECT COALESCE(1, now())
SELECT (SELECT 1), (SELECT 'a'), EXISTS (SELECT 1), EXISTS (SELECT 1 WHERE false), ARRAY(SELECT 1), (SELECT NULL)
SELECT (SELECT 1, 2)
SELECT (SELECT generate_series FROM generate_series(1, 2))
SELECT 1 IN (SELECT 1), 2 NOT IN (SELECT 1), 1 = ALL (SELECT 1), 1 > ANY (SELECT 0), 'a' IN (SELECT 'a')
SELECT pg_typeof(1), pg_typeof(1.5), pg_typeof('a'), pg_typeof(now()), pg_typeof(NULL), pg_typeof('a'::text), pg_typeof(true), pg_typeof('{}'::int[])
SELECT ('{a,b,c}'::text[])[2], (ARRAY[1,2,3])[5], array_length('{a,b}'::text[], 1), array_to_string('{a,b}'::text[], '-')
SELECT pg_lsn('0/10'), text('a'), float8('1.5'), int4('7'), bool('t')
SELECT 'a' || 'b', 'a' || 1, 1 || 'a', 'a' || NULL, 'a' || true, 'x' || now()::date - now()::date, 'lsn ' || '0/10'::pg_lsn
SELECT 1 || 2
SELECT '1'::xid::text, '0/10'::pg_lsn::text, 1.50::text, true::text, 1e20::float8::text, '{1,2}'::int[]::text
SELECT now()::int
SELECT 1::nosuch
SELECT 1::interval
SELECT nosuch(1)
SELECT length(1)
SELECT upper()
SELECT count(1, 2)
SELECT lower(DISTINCT 'a')
SELECT nosuch
SELECT a.b
SELECT t.x FROM generate_series(1, 2) t
SELECT * FROM nosuch
SELECT * FROM pg_catalog.nosuch
SELECT *

-- Lsns

SELECT '0/3000060'::pg_lsn, '0/03000060'::pg_lsn, 'FFFFFFFF/FFFFFFFF'::pg_lsn, 'ab/cd'::pg_lsn
SELECT '0/10'::pg_lsn - '0/0', '0/0'::pg_lsn - '0/10', '0/10'::pg_lsn + 16, '0/10'::pg_lsn - 16, 16 + '0/0'::pg_lsn, '0/10'::pg_lsn + 1.0
SELECT pg_wal_lsn_diff('0/10', '0/0'), pg_wal_lsn_diff('0/0', '1/0'), pg_wal_lsn_diff('0/10', '0/0')::float, pg_wal_lsn_diff(NULL, '0/0')
SELECT pg_size_pretty(pg_wal_lsn_diff('0/5000000', '0/3000060')), pg_size_pretty(10::int8), pg_size_pretty(10239::int8), pg_size_pretty(10240::int8)
SELECT pg_size_pretty(10485760::int8), pg_size_pretty(-20000000::int8), pg_size_pretty(1e12::numeric), pg_size_pretty(1e15::numeric), pg_size_pretty(1024.5)
SELECT COALESCE(NULL::pg_lsn, '0/0') - '0/0', '0/1' < '0/2'::pg_lsn, '0/0'::pg_lsn IN ('0/0', '0/1')
SELECT '0/0'::pg_lsn - 1
SELECT 'x'::pg_lsn
SELECT '0/0'::pg_lsn = 'x'
SELECT '0/0'::pg_lsn * 2
SELECT '0/0'::pg_lsn + '0/0'::pg_lsn

-- Times

SELECT '1 day'::interval, '1 year 2 mons 3 days 04:05:06.789'::interval, '-1 day'::interval, '1 mon -1 day'::interval, '0'::interval
SELECT '-00:00:01.5'::interval, '1 day -00:00:01'::interval, '-1 mon +2 days'::interval, '5 minutes'::interval, '1.5 hours'::interval, '2 weeks'::interval
SELECT '1 day ago'::interval, '1h 30m'::interval, '90 sec'::interval, '100 ms'::interval, '1.5 days'::interval, '1.5 months'::interval, '12:00'::interval
SELECT interval '1 day' + interval '1 hour', interval '1 day' - interval '1 hour', interval '1 day' * 2, 2.5 * interval '1 day', interval '1 day' / 2
SELECT interval '1 mon' / 3, interval '1 mon 1 day' * 1.5, - interval '1 day', interval '01:00' * 0.1, interval '1 day' * '2'
SELECT timestamptz '2026-01-31 12:00+00' + interval '1 mon', timestamptz '2026-01-02 00:00+00' - timestamptz '2026-01-01 12:30:15.5+00'
SELECT timestamptz '2026-01-02 00:00+02', timestamptz '2026-01-02 10:11:12.123456-05:30', timestamptz '2026-01-02', '2026-03-01T00:00:00Z'::timestamptz
SELECT timestamptz '2026-01-02 03:04:05.6789+00'::timestamptz(0), timestamptz '2026-01-02 03:04+00'::timestamp, timestamptz '2026-01-02 03:04+00'::date
SELECT date '2026-01-02', date '2026-01-02' + 1, date '2026-01-05' - date '2026-01-02', date '2026-01-02'::timestamptz, date '2026-01-02' < timestamptz '2026-01-03 00:00Z'
SELECT extract(epoch from interval '1 hour'), extract(epoch from interval '1 mon 1.5 sec'), extract(epoch from timestamptz '2026-01-02 03:04:05.6+00')
SELECT extract(year from timestamptz '2026-01-02 03:04:05+00'), extract(month from timestamptz '2026-11-02'), extract(hour from interval '26 hours'), extract(second from interval '1.5 s')
SELECT extract(day from interval '1 mon 3 days'), extract(dow from timestamptz '2026-01-04'), extract(doy from timestamptz '2026-02-01'), extract(minute from interval '-90 min')
SELECT extract(microseconds from interval '1.5 s'), extract(milliseconds from interval '1.5 s'), extract(quarter from timestamptz '2026-05-01'), extract(week from timestamptz '2026-01-04')
SELECT date_part('epoch', interval '1.5 s'), date_part('year', timestamptz '2026-01-02'), extract('epoch' from interval '1 s'), extract(epoch from interval '1 year')
SELECT date_trunc('hour', timestamptz '2026-01-02 03:04:05+00'), date_trunc('day', timestamptz '2026-01-02 03:04:05+00'), date_trunc('week', timestamptz '2026-01-02'), date_trunc('month', timestamp '2026-05-06')
SELECT GREATEST(0, EXTRACT(EPOCH FROM (now() - NULL::timestamptz))), now() - now(), now() - interval '0' = now(), current_timestamp = now()
SELECT to_timestamp(0), to_timestamp(1700000000.5), 'epoch'::timestamptz, timestamptz '2026-01-02 03:04+00' AT TIME ZONE 'UTC'
SELECT now() - '5 minutes'
SELECT 'x'::interval
SELECT '1 fortnight'::interval
SELECT '2026-13-01'::timestamptz
SELECT '2026-02-30'::date
SELECT 'x'::timestamptz
SELECT extract(nonsense from now())
SELECT extract(epoch from 1)
SELECT now() + 1
SELECT interval '1 day' + 1
SELECT interval '1 day' / 0

-- Texts

SELECT length('abc'), char_length('äb'), octet_length('äb'), upper('abc'), lower('ABC'), reverse('abc'), md5('abc')
SELECT substr('abcdef', 2), substr('abcdef', 2, 3), substr('abc', -1, 3), substring('abcdef' from 2 for 3), substring('abc' from 2), substring('abcdef' for 2)
SELECT left('abc', 2), left('abc', -1), right('abc', 2), right('abc', -1), lpad('7', 3, '0'), rpad('7', 3), lpad('abc', 2)
SELECT trim('  a '), trim(both 'x' from 'xxaxx'), ltrim('  a'), rtrim('a  '), btrim('xax', 'x'), trim(leading 'x' from 'xax'), trim('xax', 'x')
SELECT replace('abcabc', 'b', 'x'), split_part('a/b/c', '/', 2), split_part('a/b/c', '/', -1), split_part('a', '/', 5), position('b' in 'abc'), strpos('abc', 'c')
SELECT concat('a', NULL, 'b'), concat_ws(',', 'a', NULL, 'b'), starts_with('abc', 'ab'), quote_ident('a b'), quote_ident('ab'), quote_literal('it''s')
SELECT concat('a', 1, true), concat_ws('-', 1, 2)
SELECT substr('abc', 1, -1)
SELECT split_part('a', ',', 0)
SELECT host('10.0.0.1'::inet), '10.0.0.1'::inet, '10.0.0.1'::inet::text, '10.0.0.0/8'::inet, 'fe80::1'::inet, family('::1'::inet), masklen('10.0.0.0/8'::inet)
SELECT '10.0.0.2'::inet > '10.0.0.1'::inet, '10.0.0.1'::inet = '10.0.0.1', 'x' || '10.0.0.1'::inet
SELECT 'x'::inet

-- Queries

SELECT * FROM generate_series(1, 3)
SELECT g, g * 2 AS double FROM generate_series(1, 5) AS g WHERE g > 2 ORDER BY g DESC
SELECT * FROM generate_series(1, 3) AS t(n) ORDER BY n DESC LIMIT 2
SELECT * FROM generate_series(1, 10, 3) g OFFSET 1 LIMIT 2
SELECT * FROM generate_series(5, 1, -2) g
SELECT g FROM generate_series(1, 3) g ORDER BY -g
SELECT g FROM generate_series(1, 3) g LIMIT ALL
SELECT g FROM generate_series(1, 9) g FETCH FIRST 2 ROWS ONLY
SELECT a.g, b.g FROM generate_series(1, 3) a(g) JOIN generate_series(2, 4) b(g) ON a.g = b.g
SELECT a.g, b.g FROM generate_series(1, 3) a(g) LEFT JOIN generate_series(2, 4) b(g) ON a.g = b.g ORDER BY 1
SELECT a.g, b.g FROM generate_series(1, 3) a(g) RIGHT JOIN generate_series(2, 4) b(g) ON a.g = b.g ORDER BY 2
SELECT * FROM generate_series(1, 3) a(g) FULL JOIN generate_series(2, 4) b(g) USING (g) ORDER BY g
SELECT * FROM generate_series(1, 3) a(g) NATURAL JOIN generate_series(2, 4) b(g) ORDER BY g
SELECT * FROM generate_series(1, 2) a(g) CROSS JOIN generate_series(1, 2) b(h) ORDER BY 1, 2
SELECT * FROM generate_series(1, 2) a(g), generate_series(1, 2) b(h) WHERE g < h
SELECT a.* FROM generate_series(1, 2) a(g), generate_series(1, 2) b(h) WHERE g < h
SELECT count(*), count(g), sum(g), avg(g), min(g), max(g) FROM generate_series(1, 4) g
SELECT count(*), sum(g), avg(g), min(g), string_agg('x', ',') FROM generate_series(1, 0) g
SELECT g % 2 AS parity, count(*), sum(g) FILTER (WHERE g > 2) FROM generate_series(1, 6) g GROUP BY parity ORDER BY parity
SELECT g % 2, count(*) FROM generate_series(1, 6) g GROUP BY 1 HAVING count(*) > 2 ORDER BY count(*) DESC, 1
SELECT g % 2 + 1, max(g) - min(g) FROM generate_series(1, 6) g GROUP BY g % 2 ORDER BY g % 2
SELECT count(DISTINCT g % 3), sum(DISTINCT g % 3), avg(1.5), avg(2::float8), sum(2::float8), sum(2::int8), sum(1.25) FROM generate_series(1, 6) g
SELECT string_agg(g::text, ',' ORDER BY g DESC), bool_and(g > 0), bool_or(g > 5), every(g > 1) FROM generate_series(1, 3) g
SELECT sum(i), avg(i), max(i) FROM (VALUES ('1 day'::interval), ('2 hours')) v(i)
SELECT max(l), min(l), max(t), min(n) FROM (VALUES ('0/1'::pg_lsn, 'a', 'x'::name), ('0/2', 'b', 'y')) v(l, t, n)
SELECT DISTINCT g % 2 FROM generate_series(1, 5) g ORDER BY 1
SELECT DISTINCT 1, NULL FROM generate_series(1, 5)
SELECT 1 UNION SELECT 2 UNION ALL SELECT 2 ORDER BY 1
SELECT 1 UNION ALL SELECT 1.5 UNION ALL SELECT NULL ORDER BY 1
SELECT NULL UNION SELECT 1 ORDER BY 1
SELECT 'a' UNION SELECT 'a'
SELECT 1 AS a INTERSECT SELECT 1 EXCEPT SELECT 2
SELECT g FROM generate_series(1, 4) g EXCEPT SELECT 2 ORDER BY g
(SELECT 1 LIMIT 1) UNION (SELECT 2) ORDER BY 1 DESC
VALUES (1, 'a'), (2, 'b') ORDER BY 1 DESC
SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v(n, t) WHERE t IS NULL
WITH a AS (SELECT 1 AS x), b(y) AS (SELECT x + 1 FROM a) SELECT a.x, b.y FROM a, b
WITH a AS (SELECT 1 AS x) SELECT (SELECT max(x) FROM a), * FROM (SELECT x FROM a) s
SELECT g, (SELECT count(*) FROM generate_series(1, 3) h WHERE h < g.g) FROM generate_series(1, 3) g(g) ORDER BY 1
SELECT g FROM generate_series(1, 3) g WHERE EXISTS (SELECT 1 FROM generate_series(2, 3) h WHERE h = g) ORDER BY 1
SELECT g FROM generate_series(1, 5) g WHERE g IN (SELECT h * 2 FROM generate_series(1, 2) h) ORDER BY 1
SELECT sum(n) FROM (SELECT count(*) AS n FROM generate_series(1, 3)) s
SELECT x FROM (SELECT 'a' AS x UNION ALL SELECT NULL) s ORDER BY x
SELECT x FROM (SELECT 'a' AS x UNION ALL SELECT NULL) s ORDER BY x DESC
SELECT x FROM (SELECT 'a' AS x UNION ALL SELECT NULL) s ORDER BY x NULLS FIRST
SELECT x FROM (SELECT 'a' AS x UNION ALL SELECT NULL) s ORDER BY x DESC NULLS LAST
SELECT x.a, count(*) FROM (VALUES (1), (NULL), (NULL)) x(a) GROUP BY x.a ORDER BY a
SELECT 1 WHERE false
SELECT FROM generate_series(1, 2)
SELECT
SELECT g AS x FROM generate_series(1, 2) g GROUP BY g ORDER BY x DESC
SELECT upper(x) FROM (VALUES ('a'), ('b')) v(x) GROUP BY upper(x) ORDER BY upper(x)
SELECT count(*) FROM generate_series(1, 3) WHERE NULL
SELECT a.g FROM generate_series(1, 2) a(g) JOIN (SELECT 1 AS g) b USING (g)
SELECT g, count(*) FROM generate_series(1, 3) g
SELECT sum(count(*)) FROM generate_series(1, 3)
SELECT g FROM generate_series(1, 3) g WHERE count(*) > 1
SELECT g FROM generate_series(1, 3) g GROUP BY h
SELECT g FROM generate_series(1, 3) g ORDER BY 5
SELECT g FROM generate_series(1, 3) g ORDER BY 'x'
SELECT DISTINCT g FROM generate_series(1, 3) g ORDER BY -g
SELECT 1 UNION SELECT 1, 2
SELECT 1 UNION SELECT true
SELECT 1 AS a UNION SELECT 2 ORDER BY b
VALUES (1), (2, 3)
SELECT a FROM generate_series(1, 2) a, generate_series(1, 2) a
SELECT g FROM generate_series(1, 2) a(g), generate_series(1, 2) b(g)
SELECT * FROM generate_series(1, 2) a(g) JOIN generate_series(1, 2) b(h) USING (g)
SELECT 1 LIMIT -1
SELECT 1 OFFSET -1
SELECT 1 LIMIT 'x'
SELECT * FROM (SELECT 1) AS s(a, b)
SELECT g, g AS x FROM generate_series(1, 2) g ORDER BY x, g LIMIT NULL
WITH a AS (SELECT 1), a AS (SELECT 2) SELECT 1

-- Syntax

SELEC 1
SELECT 1 1
SELECT (1
SELECT 1)
SELECT 1 +
SELECT 'abc
SELECT "abc
SELECT 1 FROM
SELECT 1 FROM generate_series(1,2) WHERE
SELECT * FROM a JOIN b
SELECT CASE END
SELECT CASE WHEN true END
SELECT 1 AS
SELECT 1 ORDER
SELECT 1 GROUP BY
SELECT ,
SELECT 1,
SELECT a b c
SELECT * * 2
SELECT 1a
SELECT ""
SELECT /* x
SELECT 1 IN ()
SELECT 1 IS 2
SELECT 1 BETWEEN 2
SELECT COALESCE()
SELECT EXISTS (1)
SELECT $0
SELECT 1 LIMIT
VALUES
WITH a AS SELECT 1
SELECT table
SELECT 5 from from
,
SELECT select
