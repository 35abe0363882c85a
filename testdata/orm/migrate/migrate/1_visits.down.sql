alter table customers drop column visits;
