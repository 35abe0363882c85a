// Package pghash computes what PostgreSQL itself computes to place a row under PARTITION BY HASH.
//
// The rule: for a key value v of a supported type, Slot(v) equals the remainder for which
// satisfies_hash_partition(parent, Slots, remainder, v) is true on a live server. Nothing here
// guesses; a type that is not listed is not supported.
//
// Source: PostgreSQL's src/common/hashfn.c (Bob Jenkins' lookup3, public domain) for the byte hash,
// and compute_partition_hash_value in src/backend/partitioning/partbounds.c for seed and combination.
package pghash

import (
	"encoding/binary"
	"math/bits"
)

// Slots is the number of virtual buckets of a hashed group. It is a power of two, so a table that is
// already partitioned by hash with a smaller power of two maps to whole slots.
const Slots = 16384

// Seed is PostgreSQL's HASH_PARTITION_SEED.
const Seed uint64 = 0x7A5B22367996DCFD

// combine is hash_combine64's constant.
const combine uint64 = 0x49a0f4dd15e5a8e3

// SlotOf maps the extended hash of a one-column key, as computed with Seed, to its slot.
func SlotOf(hash uint64) int { return int((hash + combine) & (Slots - 1)) }

// Combine is hash_combine64(row, hash): what a further column makes of the hash of the columns before it, which begins as 0.
// The lowest bits of the last one are the slot.
func Combine(row, hash uint64) uint64 { return row ^ (hash + combine + row<<54 + row>>7) }

// Int is hashint8extended(v, Seed). hashint2extended and hashint4extended give the same for equal values.
func Int(v int64) uint64 {
	lo, hi := uint32(v), uint32(uint64(v)>>32)
	if v >= 0 {
		lo ^= hi
	} else {
		lo ^= ^hi
	}
	return uint32Extended(lo)
}

// Int32 is hashint4extended(v, Seed), also used for date and, for 0 and 1, boolean.
func Int32(v int32) uint64 { return uint32Extended(uint32(v)) }

// Bytes is hash_any_extended(b, Seed): text and varchar under a deterministic collation, uuid, bytea.
func Bytes(k []byte) uint64 {
	n := uint32(len(k))
	a, b, c := start(n)
	for len(k) >= 12 {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		a, b, c = mix(a, b, c)
		k = k[12:]
	}
	var tail [12]byte // the lowest byte of c stays free: the length went in at the start
	for i, x := range k {
		if i < 8 {
			tail[i] = x
		} else {
			tail[i+1] = x
		}
	}
	a += binary.LittleEndian.Uint32(tail[0:])
	b += binary.LittleEndian.Uint32(tail[4:])
	c += binary.LittleEndian.Uint32(tail[8:])
	return final(a, b, c)
}

// Numeric is hash_numeric_extended(v, Seed) for a numeric given as base-10000 digits and the weight of
// the first digit, as in the binary format. special is true for NaN and the infinities.
func Numeric(digits []int16, weight int, special bool) uint64 {
	if special {
		return Seed
	}
	digits, weight = trimZeros(digits, weight)
	if len(digits) == 0 {
		return Seed - 1
	}
	var buf [64]byte
	b := buf[:0]
	for _, d := range digits {
		b = binary.LittleEndian.AppendUint16(b, uint16(d))
	}
	return Bytes(b) ^ uint64(int64(weight))
}

func uint32Extended(k uint32) uint64 {
	a, b, c := start(4)
	return final(a+k, b, c)
}

func start(n uint32) (a, b, c uint32) {
	a = 0x9e3779b9 + n + 3923095
	b, c = a, a
	hi, lo := Seed>>32, Seed&0xffffffff
	return mix(a+uint32(hi), b+uint32(lo), c)
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func final(a, b, c uint32) uint64 {
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
