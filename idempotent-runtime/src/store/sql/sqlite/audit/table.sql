-- What operators did: only ever inserted into. Each event is one JSON object; the time is in microseconds since 1970.
create table if not exists {audit} (
    id integer primary key,
    at integer not null,
    event text not null
)
