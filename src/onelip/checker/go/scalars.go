package main

import "math/big"

// Numbers that are few: claims are exact fractions, errors are rounded upwards.

// power is 2^n as a fraction.
func power(n int) *big.Rat {
	one := big.NewInt(1)
	if n >= 0 {
		return new(big.Rat).SetInt(one.Lsh(one, uint(n)))
	}
	return new(big.Rat).SetFrac(big.NewInt(1), one.Lsh(one, uint(-n)))
}

func times2(a *big.Rat, n int) *big.Rat { return new(big.Rat).Mul(a, power(n)) }
func multiply(a, b *big.Rat) *big.Rat   { return new(big.Rat).Mul(a, b) }
func whole(n int64) *big.Rat            { return new(big.Rat).SetInt64(n) }
func atLeast(a, b *big.Rat) bool        { return a.Cmp(b) >= 0 }
func floor(a *big.Rat) *big.Int         { return new(big.Int).Div(a.Num(), a.Denom()) }

func larger(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) >= 0 {
		return a
	}
	return b
}

func smaller(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) >= 0 {
		return b
	}
	return a
}

// upper is a number >= 0 that is rounded upwards by everything that is done to it.
type upper struct{ f *big.Float }

func upwards() *big.Float { return new(big.Float).SetPrec(64).SetMode(big.ToPositiveInf) }

func nothing() upper                  { return upper{upwards()} }
func above(a *big.Rat) upper          { return upper{upwards().SetRat(a)} }
func (a upper) plus(b upper) upper    { return upper{upwards().Add(a.f, b.f)} }
func (a upper) times(b upper) upper   { return upper{upwards().Mul(a.f, b.f)} }
func (a upper) over(n int) upper      { return upper{upwards().Quo(a.f, upwards().SetInt64(int64(n)))} }
func (a upper) scaled(n int) upper    { return upper{upwards().SetMantExp(a.f, n)} }
func (a upper) fraction() *big.Rat    { r, _ := a.f.Rat(nil); return r }
func rootOfWhole(n int) upper         { return rootOf(big.NewInt(int64(n))) }
func lengthOf(m []int64, e int) upper { return rootOf(squares(m).big()).scaled(e) }

func lesser(a, b upper) upper {
	if a.f.Cmp(b.f) <= 0 {
		return a
	}
	return b
}

// rootOf is an upper bound of the root of a whole number, off by a factor of 1 + 2^-62 or less.
func rootOf(n *big.Int) upper {
	shift := 0
	if short := 128 - n.BitLen(); short > 0 {
		shift = (short + 1) / 2
	}
	m := new(big.Int).Lsh(n, uint(2*shift))
	r := new(big.Int).Sqrt(m)
	if new(big.Int).Mul(r, r).Cmp(m) != 0 {
		r.Add(r, big.NewInt(1))
	}
	return upper{upwards().SetInt(r)}.scaled(-shift)
}

// rounding is what n numbers are off by at most, each by half of 2^e: sqrt(n) 2^(e - 1).
func rounding(n, e int) upper { return rootOfWhole(n).scaled(e - 1) }
