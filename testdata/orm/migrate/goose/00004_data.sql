-- +goose Up
update customers set tier = 'gold' where false;
alter table customers alter column tier drop default, alter column email type varchar(500);
comment on column customers.tier is 'how they pay';
create view gold as select customer_id, name from customers where tier = 'gold';

-- +goose Down
drop view gold;
alter table customers alter column email type text;
