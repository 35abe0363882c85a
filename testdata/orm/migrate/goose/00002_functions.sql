-- +goose Up
-- +goose StatementBegin
create function full_label(id bigint, name text) returns text immutable language plpgsql as $$
begin
  return id || ': ' || name;
end $$;
-- +goose StatementEnd
alter table customers add constraint customers_label check (length(full_label(customer_id, name)) < 500);
insert into audit_log (what) values ('functions');

-- +goose Down
alter table customers drop constraint customers_label;
drop function full_label(bigint, text);
