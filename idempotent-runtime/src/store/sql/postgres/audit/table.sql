-- What operators did: only ever inserted into. Each event is one JSON object.
create table if not exists {audit} (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    event text not null
)
