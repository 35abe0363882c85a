package pghash_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// values makes n values of a type as PostgreSQL reads them, the edges first.
func values(t pghash.Type, n int) []string {
	rng := rand.New(rand.NewPCG(uint64(t), 7))
	edges := map[pghash.Type][]string{
		pghash.TypeInt2:        {"0", "-1", "1", "32767", "-32768"},
		pghash.TypeInt4:        {"0", "-1", "1", "2147483647", "-2147483648"},
		pghash.TypeInt8:        {"0", "-1", "1", "9223372036854775807", "-9223372036854775808", "4294967296", "-4294967296"},
		pghash.TypeText:        {"", " ", "a", "é", "日本語", "a longer text that needs more than one round of the hash", "tail of eleven", "x\ty"},
		pghash.TypeVarchar:     {"", " ", "a ", "é"},
		pghash.TypeBpchar:      {"", "a", "é", "abcdefgh"},
		pghash.TypeUUID:        {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
		pghash.TypeDate:        {"2000-01-01", "1999-12-31", "0001-01-01", "9999-12-31", "1970-01-01"},
		pghash.TypeTimestamp:   {"2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "9999-12-31 23:59:59"},
		pghash.TypeTimestamptz: {"2000-01-01 00:00:00+00", "1999-12-31 23:59:59.999999-07", "2026-03-29 02:30:00+01:30"},
		pghash.TypeBytea:       {`\x`, `\x00`, `\xdeadbeef`, `\x000102030405060708090a0b0c`},
		pghash.TypeNumeric:     {"0", "0.00", "-0", "1", "1.00", "-1.5", "10000", "0.0001", "12345678901234567890.123456789", "1e20", "1e-20", "NaN", "100000000", "99999999.99990000"},
		pghash.TypeBool:        {"true", "false"},
	}
	out := edges[t]
	for len(out) < n {
		switch t {
		case pghash.TypeInt2:
			out = append(out, fmt.Sprint(int16(rng.Uint32())))
		case pghash.TypeInt4:
			out = append(out, fmt.Sprint(int32(rng.Uint32())))
		case pghash.TypeInt8:
			out = append(out, fmt.Sprint(int64(rng.Uint64())>>rng.IntN(60)))
		case pghash.TypeText, pghash.TypeVarchar, pghash.TypeBpchar:
			s := ""
			for range rng.IntN(40) {
				s += string(rune([]int{'a', 'Z', '0', ' ', 'ß', 'λ', '中', '\''}[rng.IntN(8)]))
			}
			out = append(out, s)
		case pghash.TypeUUID:
			out = append(out, fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", rng.Uint32(), rng.Uint32()&0xffff, rng.Uint32()&0xffff, rng.Uint32()&0xffff, rng.Uint64()&0xffffffffffff))
		case pghash.TypeDate:
			out = append(out, fmt.Sprintf("%04d-%02d-%02d", 1+rng.IntN(9998), 1+rng.IntN(12), 1+rng.IntN(28)))
		case pghash.TypeTimestamp, pghash.TypeTimestamptz:
			s := fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d.%06d", 1+rng.IntN(9998), 1+rng.IntN(12), 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1000000))
			if t == pghash.TypeTimestamptz {
				s += []string{"+00", "-08", "+05:30", "Z"}[rng.IntN(4)]
			}
			out = append(out, s)
		case pghash.TypeBytea:
			b := make([]byte, rng.IntN(40))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			out = append(out, fmt.Sprintf(`\x%x`, b))
		case pghash.TypeNumeric:
			out = append(out, fmt.Sprintf("%d.%0*d", int64(rng.Uint64())>>rng.IntN(60), 1+rng.IntN(12), rng.IntN(100000)))
		default:
			return out
		}
	}
	return out
}

// server starts a PostgreSQL server for the test; its settings are such that values that hang on them would show.
func server(t *testing.T) *pgx.Conn {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a server, and -short was asked for")
	}
	cluster.RemoveStale(filepath.Join(os.TempDir(), "pgmosaic-hash-*"))
	dir, err := os.MkdirTemp("", "pgmosaic-hash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cl, err := cluster.Open(t.Context(), cluster.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Destroy() })
	node, err := cl.Primary(t.Context(), "hash")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), node.DSN("postgres")+"&timezone=America/New_York&datestyle=SQL")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// Every key type: the slot computed here is the remainder that PostgreSQL itself accepts, from text and
// from binary, and the SQL expression of the CHECK says the same.
func TestSlotsAreThoseOfPostgreSQL(t *testing.T) {
	conn := server(t)
	for _, typ := range pghash.AllTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			name := typ.String()
			if typ == pghash.TypeBpchar {
				name = "character(60)"
			}
			if _, err := conn.Exec(t.Context(), "create table p (k "+name+") partition by hash (k)"); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = conn.Exec(t.Context(), "drop table p") }()
			expr, hasSQL := pghash.SlotSQL([]pghash.Type{typ}, []string{"k"})
			if !hasSQL {
				expr = "null::int"
			}
			list := values(typ, 4000)
			collate := ""
			if typ == pghash.TypeText || typ == pghash.TypeVarchar || typ == pghash.TypeBpchar {
				collate = ` collate "C"`
			}
			rows, err := conn.Query(t.Context(), "select v, ("+expr+")::int, k, dense_rank() over (order by k"+collate+") from (select v, v::"+name+" k from unnest($1::text[]) v) x order by 4", list)
			if err != nil {
				t.Fatal(err)
			}
			type found struct {
				text   string
				slot   *int
				binary []byte
				rank   int
			}
			var all []found
			for rows.Next() {
				var f found
				if err := rows.Scan(&f.text, &f.slot, nil, &f.rank); err != nil {
					t.Fatal(err)
				}
				f.binary = append([]byte{}, rows.RawValues()[2]...)
				all = append(all, f)
			}
			if rows.Err() != nil || len(all) != len(list) {
				t.Fatalf("%v, %d rows", rows.Err(), len(all))
			}
			slots := make([]int, len(all))
			list = list[:0]
			var before []byte
			for i, f := range all {
				list = append(list, f.text)
				k, ok := pghash.ParseText(typ, f.text)
				if !ok {
					t.Fatalf("%q cannot be read as %s", f.text, typ)
				}
				slots[i] = pghash.SlotOf(k.Hash())
				kb, ok := pghash.ParseBinary(typ, f.binary)
				if !ok || kb.Hash() != k.Hash() {
					t.Fatalf("%q: text and binary hash differently", f.text)
				}
				form := k.AppendOrdered(nil)
				if !bytes.Equal(form, kb.AppendOrdered(nil)) {
					t.Fatalf("%q: text and binary are ordered differently", f.text)
				}
				if i > 0 && bytes.Compare(before, form) != min(all[i-1].rank-f.rank, 0)/max(f.rank-all[i-1].rank, 1) {
					t.Fatalf("%q and %q are not ordered as by PostgreSQL", all[i-1].text, f.text)
				}
				before = form
				if hasSQL && *f.slot != slots[i] {
					t.Fatalf("%q: slot %d here, %d by the SQL expression", f.text, slots[i], *f.slot)
				}
			}
			var wrong int
			err = conn.QueryRow(t.Context(), "select count(*) from unnest($1::text[], $2::int[]) x(v, s) where not satisfies_hash_partition('p'::regclass, 16384, s, v::"+name+")", list, slots).Scan(&wrong)
			if err != nil || wrong != 0 {
				t.Fatalf("%v: PostgreSQL rejects %d of %d slots", err, wrong, len(list))
			}
		})
	}
}

func TestValuesThatDependOnSettingsAreNotRead(t *testing.T) {
	for typ, list := range map[pghash.Type][]string{
		pghash.TypeDate:        {"01/02/2026", "today", "infinity", "2026-1-2", "Jan 1 2026", "20260101", ""},
		pghash.TypeTimestamp:   {"2026-01-01", "now", "2026-01-01 10:00:00+02", "01/02/2026 10:00"},
		pghash.TypeTimestamptz: {"2026-01-01 10:00:00", "2026-01-01 10:00:00 CET", "epoch"},
		pghash.TypeInt4:        {"1_000", "0x10", "1.0", "", "2147483648"},
		pghash.TypeNumeric:     {"", "1,5", "abc", "1e99999"},
		pghash.TypeUUID:        {"nonsense", "0000"},
		pghash.TypeBool:        {"maybe"},
	} {
		for _, v := range list {
			if _, ok := pghash.ParseText(typ, v); ok {
				t.Errorf("%s %q was read", typ, v)
			}
		}
	}
}

// Keys of two to four columns: the combined hash gives the slot that PostgreSQL accepts, and SQL computes the same.
func TestSlotsOfSeveralColumns(t *testing.T) {
	conn := server(t)
	ctx := t.Context()
	types := []pghash.Type{pghash.TypeInt8, pghash.TypeText, pghash.TypeDate, pghash.TypeUUID}
	names := []string{"a", "b", "c", "d"}
	for n := 2; n <= pghash.MaxColumns; n++ {
		var cols []string
		for i := range n {
			cols = append(cols, names[i]+" "+types[i].String())
		}
		key := strings.Join(names[:n], ", ")
		if _, err := conn.Exec(ctx, fmt.Sprintf("create table m%d (%s) partition by hash (%s)", n, strings.Join(cols, ", "), key)); err != nil {
			t.Fatal(err)
		}
		expr, ok := pghash.SlotSQL(types[:n], names[:n])
		if !ok {
			t.Fatal("no SQL for the slot")
		}
		var vals [4][]string
		for i := range n {
			vals[i] = values(types[i], 2000)
		}
		for r := range 2000 {
			row, lits := uint64(0), ""
			for i := range n {
				v := vals[i][(r*(i+1))%2000]
				k, ok := pghash.ParseText(types[i], v)
				if !ok {
					t.Fatalf("%q cannot be read", v)
				}
				row = pghash.Combine(row, k.Hash())
				lits += fmt.Sprintf(", '%s'::%s", strings.ReplaceAll(v, "'", "''"), types[i])
			}
			slot := int(row & (pghash.Slots - 1))
			var right bool
			var bySQL int
			err := conn.QueryRow(ctx, fmt.Sprintf("select satisfies_hash_partition('m%d'::regclass, 16384, %d%s), %s from (select %s) x(%s)", n, slot, lits, expr, lits[2:], key)).Scan(&right, &bySQL)
			if err != nil || !right || bySQL != slot {
				t.Fatalf("%d columns (%s): slot %d, %d by SQL, accepted: %v, %v", n, lits[2:], slot, bySQL, right, err)
			}
		}
	}
}
