// Command gorm runs GORM on the sharded shop: migration, create, read, update, delete, relations, a transaction.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// Customer is a row of the sharded table.
type Customer struct {
	CustomerID int64 `gorm:"primaryKey"`
	Name       string
	Email      string
	Country    string
	CreatedAt  time.Time
}

// Blog has many posts.
type Blog struct {
	ID    uint
	Name  string
	Posts []Post
}

// Post belongs to a blog.
type Post struct {
	ID     uint
	BlogID uint
	Title  string
}

func check(what string, got, want any) {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		fmt.Fprintf(os.Stderr, "%s: %v, want %v\n", what, got, want)
		os.Exit(1)
	}
	fmt.Println("ok", what)
}

func main() {
	db, err := gorm.Open(postgres.Open(os.Getenv("DSN")), &gorm.Config{})
	check("open", err, nil)
	check("migrate", db.AutoMigrate(&Blog{}, &Post{}), nil)
	check("migrate again", db.AutoMigrate(&Blog{}, &Post{}), nil)
	check("create with a relation", db.Create(&Blog{Name: "b", Posts: []Post{{Title: "one"}, {Title: "two"}}}).Error, nil)
	var b Blog
	check("read", db.Preload("Posts").First(&b).Error, nil)
	check("relation", len(b.Posts), 2)
	var rows []Customer
	for i := range 20 {
		rows = append(rows, Customer{CustomerID: int64(995000 + i), Name: fmt.Sprint("g", i), Email: "x", Country: "DE"})
	}
	check("create over shards", db.Create(&rows).Error, nil)
	var c Customer
	check("by key", db.First(&c, 995003).Error, nil)
	check("update", db.Model(&c).Update("name", "changed").Error, nil)
	var n int64
	check("count", db.Model(&Customer{}).Where("customer_id >= ? and name like ?", 995000, "g%").Count(&n).Error, nil)
	check("counted", n, 19)
	undo := errors.New("undo")
	check("transaction", errors.Is(db.Transaction(func(tx *gorm.DB) error {
		check("delete", tx.Where("customer_id >= ?", 995000).Delete(&Customer{}).Error, nil)
		return undo
	}), undo), true)
	check("rolled back", db.Model(&Customer{}).Where("customer_id >= ?", 995000).Count(&n).Error, nil)
	check("all there", n, 20)
	check("delete", db.Where("customer_id >= ?", 995000).Delete(&Customer{}).Error, nil)
	check("drop", db.Migrator().DropTable(&Post{}, &Blog{}), nil)
	fmt.Println("done")
}
