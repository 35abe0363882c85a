create index lost on orders (total); alter table customers drop column no_such_column;
