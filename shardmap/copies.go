package shardmap

// CopyTriggerName is the name of the trigger on each copy of a reference table, and on its partitions.
const CopyTriggerName = "pgmosaic_copy"

// CopyTrigger is the statement that gives a copy of a reference table the trigger that refuses what is written to one copy alone.
func CopyTrigger(table string) string {
	return "CREATE TRIGGER " + CopyTriggerName + " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON " + table + " FOR EACH STATEMENT EXECUTE FUNCTION pgmosaic.written()"
}
