create function count_visit() returns trigger language plpgsql as $$ begin new.visits := coalesce(new.visits, 0) + 1; return new; end $$;
create trigger count_visit before update of name on customers for each row execute function count_visit();
create index if not exists customers_visits on customers (visits);
