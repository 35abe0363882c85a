drop index customers_visits;
drop trigger count_visit on customers;
drop function count_visit();
