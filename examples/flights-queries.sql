-- The whole year at a glance
SELECT COUNT(*) AS flights, SUM(distance) AS miles, MIN(time_hour) AS first, MAX(time_hour) AS last
FROM nyc.flights;

-- A week of February, day by day: a snowstorm came on the 8th
SELECT flight_date, COUNT(*) AS flights, COUNT(dep_time) AS departed, CAST(AVG(dep_delay) AS INT) AS mean_delay
FROM nyc.flights
WHERE time_hour >= '2013-02-04 05:00:00' AND time_hour < '2013-02-11 05:00:00'
GROUP BY flight_date
ORDER BY flight_date;

-- From October into November: rows of both tiers in one answer
SELECT flight_date, COUNT(*) AS flights, CAST(AVG(distance) AS INT) AS mean_miles
FROM nyc.flights
WHERE time_hour >= '2013-10-29 04:00:00' AND time_hour < '2013-11-04 05:00:00'
GROUP BY flight_date
ORDER BY flight_date;

-- Which airlines were late in summer
SELECT carrier, COUNT(*) AS flights, CAST(AVG(arr_delay) AS INT) AS mean_delay, MAX(arr_delay) AS worst
FROM nyc.flights
WHERE time_hour >= '2013-06-01' AND time_hour < '2013-09-01'
GROUP BY carrier
ORDER BY mean_delay DESC
LIMIT 5;
