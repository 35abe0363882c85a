import jakarta.persistence.*;
import java.time.OffsetDateTime;
import java.util.*;
import org.hibernate.Session;
import org.hibernate.SessionFactory;
import org.hibernate.cfg.Configuration;

/** Hibernate on the sharded shop: its schema tool, create, read, update, delete, relations, a transaction. */
public class Hibernate {
  @Entity(name = "Customer")
  @Table(name = "customers")
  public static class Customer {
    @Id public Long customer_id;
    public String name;
    public String email;
    public String country;
    public OffsetDateTime created_at;
  }

  @Entity(name = "Shelf")
  @Table(name = "shelves")
  public static class Shelf {
    @Id @GeneratedValue(strategy = GenerationType.IDENTITY) public Long id;
    @OneToMany(mappedBy = "shelf", cascade = CascadeType.ALL) public List<Book> books = new ArrayList<>();
  }

  @Entity(name = "Book")
  @Table(name = "books")
  public static class Book {
    @Id @GeneratedValue public Long id;
    public String title;
    @ManyToOne public Shelf shelf;
  }

  static void check(String what, Object got, Object want) {
    if (!String.valueOf(got).equals(String.valueOf(want))) throw new AssertionError(what + ": " + got + ", want " + want);
    System.out.println("ok " + what);
  }

  public static void main(String[] a) {
    java.util.logging.Logger.getLogger("org.hibernate").setLevel(java.util.logging.Level.OFF);
    Configuration c = new Configuration().addAnnotatedClass(Customer.class).addAnnotatedClass(Shelf.class).addAnnotatedClass(Book.class);
    c.setProperty("hibernate.connection.url", "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/shop?prepareThreshold=2");
    c.setProperty("hibernate.connection.username", "app");
    c.setProperty("hibernate.connection.password", "app");
    c.setProperty("hibernate.hbm2ddl.auto", "update");
    c.setProperty("hibernate.jdbc.batch_size", "10");
    try (SessionFactory f = c.buildSessionFactory()) {
      f.inTransaction(s -> {
        Shelf shelf = new Shelf();
        for (String t : List.of("one", "two")) {
          Book b = new Book();
          b.title = t;
          b.shelf = shelf;
          shelf.books.add(b);
        }
        s.persist(shelf);
        for (long k = 997000; k < 997020; k++) {
          Customer x = new Customer();
          x.customer_id = k;
          x.name = "h" + k;
          x.email = "x";
          x.country = "DE";
          x.created_at = OffsetDateTime.parse("2026-01-01T00:00:00Z");
          s.persist(x);
        }
      });
      f.inTransaction(s -> check("relation", s.createQuery("from Shelf", Shelf.class).getResultList().get(0).books.size(), 2));
      f.inTransaction(s -> s.get(Customer.class, 997003L).name = "changed");
      f.inTransaction(s -> {
        check("update", s.get(Customer.class, 997003L).name, "changed");
        check("count", s.createQuery("select count(*) from Customer where customer_id >= 997000", Long.class).getSingleResult(), 20);
        check("in over shards", s.createQuery("from Customer where customer_id in (997001L, 997002L, 997003L)", Customer.class).getResultList().size(), 3);
      });
      try {
        f.inTransaction(s -> {
          s.createMutationQuery("delete from Customer where customer_id >= 997000").executeUpdate();
          throw new IllegalStateException("undo");
        });
      } catch (IllegalStateException e) {
        check("thrown", e.getMessage(), "undo");
      }
      f.inTransaction(s -> check("deleted", s.createMutationQuery("delete from Customer where customer_id >= 997000").executeUpdate(), 20));
      f.inTransaction(s -> {
        for (String t : List.of("drop table books", "drop table shelves", "drop sequence if exists books_seq")) s.createNativeMutationQuery(t).executeUpdate();
      });
    }
    System.out.println("done");
  }
}
