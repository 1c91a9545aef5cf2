package main

import (
	"math/big"
	"math/bits"
)

// Numbers here are whole in units of 2^-128.
const (
	deep    = 128
	nearby  = 6  // below it the normal distribution function is a series, above it a continued fraction
	fractal = 32 // terms of that
)

var (
	deepOne = new(big.Int).Lsh(big.NewInt(1), deep)
	// density is 1 / sqrt(2 pi), and steep is sqrt(8 / pi), rounded down, each off by less than 2 units: pi is off by
	// less than 2^-180 of it.
	density = rootOverPi(1, 2)
	steep   = rootOverPi(8, 1)
	dense62 = shortened62(density)
)

// rootOverPi is sqrt(a / (b pi)), at most.
func rootOverPi(a, b int64) *big.Int {
	x := new(big.Int).Lsh(big.NewInt(a), 2*deep+digits2)
	x.Quo(x, new(big.Int).Mul(big.NewInt(b), new(big.Int).Add(pi, big.NewInt(4000))))
	return x.Sqrt(x)
}

// shortened62 is a number that is less than 2 units above a.
func shortened62(a *big.Int) fixed {
	low := new(big.Int).Rsh(a, deep-places).Uint64()
	return fixed{low, low + 1 + 1}
}

// size is |x|, rounded down; it is off by less than a unit.
func (p point) size() *big.Int {
	t := new(big.Int).SetUint64(p.m)
	if n := p.e + deep; n >= 0 {
		return t.Lsh(t, uint(n))
	}
	return t.Rsh(t, uint(-p.e-deep))
}

// gelu is x Phi(x) - max(x, 0), which is -t Phi(-t) for t = |x|.
func gelu(p point) span {
	if p.m == 0 {
		return span{}
	}
	if bits.Len64(p.m)+p.e > 6 { // below e^(-t^2 / 2), and t^2 / 2 >= 2^11
		return span{high: 1, e: -tiny, negative: true}
	}
	p.negative = true
	t := p.size()
	if t.Cmp(new(big.Int).Lsh(big.NewInt(nearby), deep)) < 0 {
		return p.multiplied(tail(t))
	}
	s := farTail(t)
	s.negative = true
	return s
}

// needed is how many terms tail takes for t^2 / 2 < k + 1: (t^2 / 2)^n / n! is below 2^-100.
var needed = func() (counts [nearby*nearby/2 + 1]int) {
	for k := range counts {
		a, b := new(big.Int).Lsh(big.NewInt(1), 100), big.NewInt(1)
		for a.Cmp(b) > 0 {
			counts[k]++
			a.Mul(a, big.NewInt(int64(k+1)))
			b.Mul(b, big.NewInt(int64(counts[k])))
		}
	}
	return counts
}()

// tail is Phi(-t) for t < 6, as a number times 2^-halvings: 1/2 - t (sum of (-z)^k / (k! (2 k + 1))) / sqrt(2 pi), z = t^2 / 2.
//
// The sum is 1 - z/1 (1/3 - z/2 (1/5 - ...)); all brackets, which are integrals of 1F1(1; k + 1; -z s^2) s^2k over
// [0, 1], are in [0, 1]. With z off by less than 8 units, a bracket by rounding and by that is off by less than 11
// units, and by z / (k + 1) times what the next is off by: by 11 e^18 < 2^30 in all, and by 2^28 for what is left out.
// Then Phi(-t), which is above 2^-31, is off by less than 0.4 * 6 * 2^31 + 16 < 2^33 units.
func tail(t *big.Int) (fixed, int) {
	z := new(big.Int).Mul(t, t)
	z.Rsh(z, deep+1)
	whole := int(new(big.Int).Rsh(z, deep).Int64())
	sum, product := new(big.Int), new(big.Int)
	for k := needed[whole] - 1; k >= 0; k-- {
		product.Mul(sum, z)
		product.Rsh(product, deep)
		product.Quo(product, big.NewInt(int64(k+1)))
		sum.Quo(deepOne, big.NewInt(int64(2*k+1)))
		sum.Sub(sum, product)
	}
	product.Mul(sum, t)
	product.Rsh(product, deep)
	sum.Mul(product, density)
	sum.Rsh(sum, deep)
	sum.Sub(new(big.Int).Rsh(deepOne, 1), sum)
	off := new(big.Int).Lsh(big.NewInt(1), 33)
	low, high := new(big.Int).Sub(sum, off), sum.Add(sum, off)
	n := high.BitLen() - places
	return fixed{low.Rsh(low, uint(n)).Uint64(), high.Rsh(high, uint(n)).Uint64() + 1}, deep - places - n
}

// farTail is t Phi(-t) for t in [6, 64): e^(-t^2 / 2) / sqrt(2 pi) times t / f_1, with the continued fraction
// f_k = t + k / f_(k+1); every f_n is between t and t + n / t.
func farTail(t *big.Int) span {
	over := func(n int, f *big.Int) *big.Int { // n / f, rounded down
		x := new(big.Int).Lsh(big.NewInt(int64(n)), 2*deep)
		return x.Quo(x, f)
	}
	one, more := big.NewInt(1), new(big.Int).Add(t, big.NewInt(1))
	low, high := t, new(big.Int).Add(more, over(fractal, t))
	high.Add(high, one)
	for k := fractal - 1; k >= 1; k-- {
		l, h := over(k, high), over(k, low)
		low, high = l.Add(l, t), h.Add(h.Add(h, more), one)
	}
	share := func(t, f *big.Int) uint64 {
		x := new(big.Int).Lsh(t, places)
		return x.Quo(x, f).Uint64()
	}
	ratio := fixed{share(t, high), share(more, low) + 1}
	units := func(t *big.Int) wide {
		z := new(big.Int).Mul(t, t)
		return widest(z.Rsh(z, 2*deep+1-finest))
	}
	d := decayedBetween(units(t), units(more).plus(widen(1)))
	return d.value.times(dense62).times(ratio).span(d.halvings)
}

// geluByTanh is x (1 + tanh(u)) / 2 = x / (1 + e^-2u), 2 u = sqrt(8 / pi) (x + 0.044715 x^3).
func geluByTanh(p point) span {
	if bits.Len64(p.m)+p.e > 6 { // 2 u is above 2^11 and |x|
		return p.gated(faded)
	}
	// The sum is off by less than 1 + 0.05 * 3 * 2^12 + 2 < 2^10 units, and below 2^14; y by less than 2^12 + 2^15 + 1 < 2^16.
	t := p.size()
	cube := new(big.Int).Mul(t, t)
	cube.Rsh(cube.Mul(cube, t), 2*deep)
	cube.Quo(cube.Mul(cube, big.NewInt(44715)), big.NewInt(1000000))
	y := t.Add(t, cube)
	y.Rsh(y.Mul(y, steep), deep)
	if y.BitLen() > deep+farthest {
		return p.gated(faded)
	}
	high := new(big.Int).Add(y, new(big.Int).Lsh(big.NewInt(1), 16))
	low := widest(y.Rsh(y, deep-finest))
	return p.gated(decayedBetween(low, widest(high.Rsh(high, deep-finest)).plus(widen(1))))
}
