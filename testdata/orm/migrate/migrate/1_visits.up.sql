begin;
alter table customers add column visits int;
update customers set visits = 1;
alter table customers alter column visits set not null;
commit;
