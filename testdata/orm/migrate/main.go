// Goose and golang-migrate over the sharded shop, as their users run them: up, a failing step, down.
package main

import (
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed goose/*.sql migrate/*.sql
var files embed.FS

func main() {
	dsn := os.Getenv("DSN")
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	sub, err := fs.Sub(files, "goose")
	check(err)
	goose.SetBaseFS(sub)
	goose.SetLogger(goose.NopLogger())
	check(goose.SetDialect("postgres"))
	check(goose.Up(db, "."))
	expect(db, "select count(*) from customers where tier = 'basic'", "100")
	expect(db, "select count(*) from pg_indexes where indexname in ('customers_tier', 'customers_lower_name')", "2")
	expect(db, "select full_label(customer_id, name) from customers where customer_id = 5", "5: ")
	v, err := goose.GetDBVersion(db)
	check(err)
	if v != 4 {
		log.Fatalf("goose is at version %d", v)
	}
	check(goose.DownTo(db, ".", 0))
	expect(db, "select count(*) from information_schema.columns where table_name = 'customers' and column_name = 'tier'", "0")

	src, err := iofs.New(files, "migrate")
	check(err)
	m, err := migrate.NewWithSourceInstance("iofs", src, "pgx5"+strings.TrimPrefix(dsn, "postgres"))
	check(err)
	err = m.Up() // its third step is a mistake
	if err == nil || !strings.Contains(err.Error(), "no_such_column") {
		log.Fatalf("the mistake gave %v", err)
	}
	version, dirty, err := m.Version()
	check(err)
	if version != 3 || !dirty {
		log.Fatalf("golang-migrate is at %d, dirty %t", version, dirty)
	}
	check(m.Force(2))
	expect(db, "select sum(visits) from customers", "100")
	if err := m.Down(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		log.Fatal(err)
	}
	expect(db, "select count(*) from information_schema.columns where table_name = 'customers' and column_name = 'visits'", "0")
	fmt.Println("done")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// expect compares the start of a query's one value.
func expect(db *sql.DB, query, want string) {
	var got string
	check(db.QueryRow(query).Scan(&got))
	if !strings.HasPrefix(got, want) {
		log.Fatalf("%s: %s, want %s", query, got, want)
	}
}
