-- What operators did: only ever inserted into. Each event is one JSON object.
create table if not exists {audit} (
    id bigint not null auto_increment primary key,
    at datetime(6) not null,
    event longtext character set utf8mb4 not null
) engine = InnoDB
