-- +goose NO TRANSACTION
-- +goose Up
create index concurrently customers_tier on customers (tier, customer_id);
create index concurrently if not exists customers_lower_name on customers (lower(name));

-- +goose Down
drop index concurrently customers_tier;
drop index concurrently customers_lower_name;
