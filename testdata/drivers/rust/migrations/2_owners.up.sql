-- no-transaction
create index concurrently cards_owner on cards (owner);
