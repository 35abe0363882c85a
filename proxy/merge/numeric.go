package merge

import (
	"encoding/binary"
	"math/big"
	"strings"
)

// Decimal is a numeric value: Unscaled / 10^Scale, or NaN or an infinity.
type Decimal struct {
	Unscaled *big.Int
	Scale    int
	Special  uint16 // 0, or numericNaN, numericPInf, numericNInf
}

// Sign words of the binary format.
const (
	numericNeg  = 0x4000
	numericNaN  = 0xC000
	numericPInf = 0xD000
	numericNInf = 0xF000
)

var ten = big.NewInt(10)

func pow10(n int) *big.Int { return new(big.Int).Exp(ten, big.NewInt(int64(n)), nil) }

// DecodeNumeric reads PostgreSQL's binary format.
func DecodeNumeric(b []byte) (Decimal, bool) {
	if len(b) < 8 {
		return Decimal{}, false
	}
	n := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	if len(b) != 8+2*n {
		return Decimal{}, false
	}
	if sign&0xC000 == 0xC000 {
		return Decimal{Unscaled: new(big.Int), Special: sign}, true
	}
	v := new(big.Int)
	base := big.NewInt(10000)
	for i := range n {
		v.Mul(v, base).Add(v, big.NewInt(int64(binary.BigEndian.Uint16(b[8+2*i:]))))
	}
	// v counts units of 10000^(weight-n+1); bring it to units of 10^-scale.
	exp := 4*(weight-n+1) + scale
	if exp >= 0 {
		v.Mul(v, pow10(exp))
	} else {
		v.Quo(v, pow10(-exp)) // digits behind the scale are zeros
	}
	if sign == numericNeg {
		v.Neg(v)
	}
	return Decimal{Unscaled: v, Scale: scale}, true
}

// FromInt is an integer as a Decimal.
func FromInt(n int64) Decimal { return Decimal{Unscaled: big.NewInt(n)} }

// Add is PostgreSQL's numeric addition: the scale is the larger one.
func (d Decimal) Add(o Decimal) Decimal {
	if d.Special != 0 || o.Special != 0 {
		switch {
		case d.Special == 0:
			return o
		case o.Special == 0 || o.Special == d.Special:
			return d
		}
		return Decimal{Unscaled: new(big.Int), Special: numericNaN}
	}
	s := max(d.Scale, o.Scale)
	return Decimal{Unscaled: new(big.Int).Add(d.at(s), o.at(s)), Scale: s}
}

func (d Decimal) at(scale int) *big.Int {
	return new(big.Int).Mul(d.Unscaled, pow10(scale-d.Scale))
}

// DivInt is PostgreSQL's numeric division by an integer, with the scale that it chooses: at least 16
// significant digits and the scale of the input. Source: select_div_scale in numeric.c.
func (d Decimal) DivInt(n int64) Decimal {
	if d.Special != 0 {
		return d
	}
	den := Decimal{Unscaled: big.NewInt(n)}
	w1, f1 := d.lead()
	w2, f2 := den.lead()
	qweight := w1 - w2
	if f1 <= f2 {
		qweight--
	}
	scale := min(max(16-qweight*4, d.Scale, 0), 1000)
	num := new(big.Int).Mul(d.Unscaled, pow10(max(scale-d.Scale, 0)))
	q, r := new(big.Int).QuoRem(num, den.Unscaled, new(big.Int))
	if r.Abs(r).Lsh(r, 1).CmpAbs(den.Unscaled) >= 0 { // half rounds away from zero
		if num.Sign()*den.Unscaled.Sign() < 0 {
			q.Sub(q, big.NewInt(1))
		} else {
			q.Add(q, big.NewInt(1))
		}
	}
	return Decimal{Unscaled: q, Scale: scale}
}

// lead is the weight and value of the first non-zero base-10000 digit.
func (d Decimal) lead() (weight, digit int) {
	digits, w := d.base10000()
	if len(digits) == 0 {
		return 0, 0
	}
	return w, int(digits[0])
}

// base10000 are the digits without leading and trailing zeros, and the weight of the first.
func (d Decimal) base10000() (digits []uint16, weight int) {
	s := new(big.Int).Abs(d.Unscaled).String()
	if s == "0" {
		return nil, 0
	}
	frac := d.Scale
	for frac%4 != 0 {
		s += "0"
		frac++
	}
	for len(s)%4 != 0 {
		s = "0" + s
	}
	for i := 0; i < len(s); i += 4 {
		digits = append(digits, uint16(s[i]-'0')*1000+uint16(s[i+1]-'0')*100+uint16(s[i+2]-'0')*10+uint16(s[i+3]-'0'))
	}
	weight = len(digits) - frac/4 - 1
	for len(digits) > 0 && digits[0] == 0 {
		digits, weight = digits[1:], weight-1
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	return digits, weight
}

// Text is the value as PostgreSQL prints it.
func (d Decimal) Text() string {
	switch d.Special {
	case numericNaN:
		return "NaN"
	case numericPInf:
		return "Infinity"
	case numericNInf:
		return "-Infinity"
	}
	s := new(big.Int).Abs(d.Unscaled).String()
	if d.Scale > 0 {
		if len(s) <= d.Scale {
			s = strings.Repeat("0", d.Scale-len(s)+1) + s
		}
		s = s[:len(s)-d.Scale] + "." + s[len(s)-d.Scale:]
	}
	if d.Unscaled.Sign() < 0 {
		s = "-" + s
	}
	return s
}

// Binary is the value in PostgreSQL's binary format.
func (d Decimal) Binary() []byte {
	digits, weight := d.base10000()
	sign := d.Special
	if d.Special == 0 && d.Unscaled.Sign() < 0 {
		sign = numericNeg
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(digits)))
	b = binary.BigEndian.AppendUint16(b, uint16(int16(weight)))
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, uint16(d.Scale))
	for _, x := range digits {
		b = binary.BigEndian.AppendUint16(b, x)
	}
	return b
}

func (d Decimal) canonical() []byte {
	d.Scale = d.Scale + 0
	b := d.Binary()
	b[6], b[7] = 0, 0 // equal values differ in nothing but the scale
	return b
}

func compareNumeric(a, b []byte) int {
	x, ok1 := DecodeNumeric(a)
	y, ok2 := DecodeNumeric(b)
	if !ok1 || !ok2 {
		return 0
	}
	rank := func(d Decimal) int {
		switch d.Special {
		case numericNInf:
			return -1
		case numericPInf:
			return 1
		case numericNaN:
			return 2
		}
		return 0
	}
	if rx, ry := rank(x), rank(y); rx != 0 || ry != 0 {
		return rx - ry
	}
	s := max(x.Scale, y.Scale)
	return x.at(s).Cmp(y.at(s))
}
