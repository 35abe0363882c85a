import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.core.BaseConnection;
import org.postgresql.largeobject.*;

/** What an application does with pgjdbc: server-side prepared statements, binary transfer, batches, fetch size, COPY, large objects. */
public class Smoke {
  static void check(String what, Object got, Object want) {
    if (!String.valueOf(got).equals(String.valueOf(want))) throw new AssertionError(what + ": " + got + ", want " + want);
    System.out.println("ok " + what);
  }

  public static void main(String[] a) throws Exception {
    Properties p = new Properties();
    p.setProperty("user", a[1]);
    p.setProperty("password", a[2]);
    p.setProperty("prepareThreshold", "2");
    try (Connection c = DriverManager.getConnection(a[0], p)) {
      try (PreparedStatement s = c.prepareStatement("select customer_id, name from customers where customer_id = ?")) {
        for (int k = 1; k <= 40; k++) {
          s.setLong(1, k);
          try (ResultSet r = s.executeQuery()) {
            r.next();
            check("key " + k, r.getLong(1), k);
          }
        }
      }
      try (PreparedStatement s = c.prepareStatement("select ?::int4, ?::int8, ?::float8, ?::numeric, ?::bool, ?::text, ?::bytea, ?::timestamp, ?::int4[], ?::uuid")) {
        for (int i = 0; i < 4; i++) {
          s.setInt(1, 7);
          s.setLong(2, 1L << 40);
          s.setDouble(3, 1.5);
          s.setBigDecimal(4, new BigDecimal("12.340"));
          s.setBoolean(5, true);
          s.setString(6, "é");
          s.setBytes(7, new byte[] {0, -1});
          s.setTimestamp(8, Timestamp.valueOf("2026-01-02 03:04:05.678"));
          s.setArray(9, c.createArrayOf("int4", new Integer[] {1, null, 3}));
          s.setObject(10, new UUID(0, 5));
          try (ResultSet r = s.executeQuery()) {
            r.next();
            check("types", r.getInt(1) + " " + r.getLong(2) + " " + r.getDouble(3) + " " + r.getBigDecimal(4) + " " + r.getBoolean(5) + " " + r.getString(6) + " " + r.getBytes(7).length + " "
                + r.getTimestamp(8) + " " + Arrays.toString((Object[]) r.getArray(9).getArray()) + " " + r.getObject(10),
                "7 1099511627776 1.5 12.340 true é 2 2026-01-02 03:04:05.678 [1, null, 3] " + new UUID(0, 5));
          }
        }
      }
      c.setAutoCommit(false);
      try (PreparedStatement s = c.prepareStatement("insert into customers values (?, ?, 'x', 'DE', '2026-01-01')")) {
        for (int i = 0; i < 50; i++) {
          s.setLong(1, 950000 + i);
          s.setString(2, "j" + i);
          s.addBatch();
        }
        check("batch over shards", Arrays.stream(s.executeBatch()).sum(), 50);
      }
      c.commit();
      Savepoint sp = c.setSavepoint("one");
      try (Statement s = c.createStatement()) {
        s.executeUpdate("delete from customers where customer_id = 950001");
        try {
          s.execute("select 1/0");
          throw new AssertionError("no error");
        } catch (SQLException e) {
          check("division", e.getSQLState(), "22012");
        }
        try {
          s.execute("select 1");
          throw new AssertionError("no error");
        } catch (SQLException e) {
          check("failed transaction", e.getSQLState(), "25P02");
        }
      }
      c.rollback(sp);
      try (Statement s = c.createStatement()) {
        check("rolled back to the savepoint, then deleted", s.executeUpdate("delete from customers where customer_id between 950000 and 950049"), 50);
      }
      c.commit();
      for (String sql : new String[] {"select generate_series(1, 1000)", "select customer_id from customers where customer_id between 1 and 1000 order by customer_id"}) {
        try (Statement s = c.createStatement()) {
          s.setFetchSize(100);
          int n = 0;
          try (ResultSet r = s.executeQuery(sql)) {
            while (r.next()) check("fetch size " + r.getLong(1), r.getLong(1), ++n);
          }
        }
      }
      LargeObjectManager lom = c.unwrap(PGConnection.class).getLargeObjectAPI(); // by function calls of the fast path
      long oid = lom.createLO(LargeObjectManager.READWRITE);
      LargeObject lo = lom.open(oid, LargeObjectManager.READWRITE);
      lo.write("large".getBytes());
      lo.seek(0);
      check("large object", new String(lo.read(5)), "large");
      lo.close();
      lom.delete(oid);
      c.commit();
      c.setAutoCommit(true);
      CopyManager copy = new CopyManager(c.unwrap(BaseConnection.class));
      check("copy in", copy.copyIn("copy customers from stdin", new StringReader("960001\ta\tx\tDE\t2026-01-01\n960002\tb\tx\tDE\t2026-01-01\n")), 2);
      StringWriter w = new StringWriter();
      copy.copyOut("copy (select name from customers where customer_id = 960002) to stdout", w);
      check("copy out", w.toString(), "b\n");
      try (Statement s = c.createStatement()) {
        s.executeUpdate("delete from customers where customer_id in (960001, 960002)");
        s.execute("listen news");
      }
      try (Connection o = DriverManager.getConnection(a[0], p); Statement s = o.createStatement()) {
        s.execute("notify news, 'hello'");
      }
      check("notification", c.unwrap(PGConnection.class).getNotifications(5000)[0].getParameter(), "hello");
      try (Statement s = c.createStatement()) {
        Timer t = new Timer(true);
        t.schedule(new TimerTask() {
          public void run() {
            try {
              s.cancel();
            } catch (SQLException e) {
              throw new RuntimeException(e);
            }
          }
        }, 300);
        s.execute("select pg_sleep(20)");
        throw new AssertionError("not cancelled");
      } catch (SQLException e) {
        check("cancel", e.getSQLState(), "57014");
      }
      try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("select repeat('x', 1000) from generate_series(1, 20000)")) {
        long n = 0;
        while (r.next()) n += r.getString(1).length();
        check("a big result", n, 20000000);
      }
      try (PreparedStatement s = c.prepareStatement("insert into moods (customer_id, m, ms) values (?, ?::mood, ?)")) {
        for (int k = 1; k <= 8; k++) {
          s.setLong(1, k);
          s.setString(2, "happy");
          s.setArray(3, c.createArrayOf("mood", new String[] {"sad", "ok"}));
          check("enum of key " + k, s.executeUpdate(), 1);
        }
      }
      try (PreparedStatement s = c.prepareStatement("select m, ms from moods where customer_id = ?")) {
        for (int k = 1; k <= 8; k++) {
          s.setLong(1, k);
          try (ResultSet r = s.executeQuery()) {
            r.next();
            check("enum read of key " + k, r.getString(1) + Arrays.toString((Object[]) r.getArray(2).getArray()) + r.getMetaData().getColumnTypeName(1), "happy[sad, ok]mood");
          }
        }
      }
      try (Statement s = c.createStatement()) {
        s.executeUpdate("delete from moods where m = 'happy'");
      }
      check("metadata", c.getMetaData().getColumns(null, "public", "customers", "name").next(), true);
    }
    System.out.println("done");
  }
}
