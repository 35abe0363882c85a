-- +goose Up
create type tier as enum ('basic', 'gold');
alter table customers add column tier tier not null default 'basic';
create table audit_log (id bigserial primary key, what text not null, at timestamptz not null default now());

-- +goose Down
drop table audit_log;
alter table customers drop column tier;
drop type tier;
