-- The tables of the demo.
CREATE NAMESPACE IF NOT EXISTS nyc;

-- Flights out of New York City. The key begins with the time: files are sorted by key, so that a time range reads few of them.
-- The operator flushes the table as soon as 5,000 of its rows are in the hot tier only.
CREATE SHARED TABLE IF NOT EXISTS nyc.flights (
    time_hour      TIMESTAMP NOT NULL, -- scheduled hour of departure, UTC
    carrier        TEXT      NOT NULL,
    flight         INT       NOT NULL,
    flight_date    DATE      NOT NULL, -- scheduled day of departure, New York time
    origin         TEXT      NOT NULL,
    dest           TEXT      NOT NULL,
    tailnum        TEXT,
    sched_dep_time INT       NOT NULL, -- hour and minute as one number, New York time: 1545 is 15:45
    dep_time       INT,                -- absent where the flight was cancelled
    dep_delay      INT,                -- minutes
    sched_arr_time INT       NOT NULL,
    arr_time       INT,
    arr_delay      INT,
    air_time       INT,
    distance       INT       NOT NULL, -- miles
    PRIMARY KEY (time_hour, carrier, flight)
) WITH (FLUSH_POLICY = 'rows:5000', ACCESS_LEVEL = 'PUBLIC');

-- What each traveller has booked. Every user sees their own rows only, whatever the query says.
CREATE USER TABLE IF NOT EXISTS nyc.bookings (
    id        BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(),
    time_hour TIMESTAMP NOT NULL,
    carrier   TEXT      NOT NULL,
    flight    INT       NOT NULL,
    seat      TEXT      NOT NULL
);
