drop index if exists lost;
