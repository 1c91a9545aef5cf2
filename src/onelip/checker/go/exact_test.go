package main

import (
	"math"
	"math/big"
	"math/rand"
	"testing"
)

var source = rand.New(rand.NewSource(7))

// integral is a random whole number of up to so many bits, often an extreme one.
func integral(bits int) int64 {
	top := int64(1) << bits
	switch source.Intn(8) {
	case 0:
		return top
	case 1:
		return -top
	case 2:
		return 0
	case 3:
		return int64(source.Intn(3)) - 1
	}
	return source.Int63n(2*top+1) - top
}

func bigs(a int64) *big.Int { return big.NewInt(a) }

func TestWideNumbersAreThoseOfMathBig(t *testing.T) {
	for n := 0; n < 20000; n++ {
		a, b, c, d := integral(61), integral(61), integral(60), integral(60)
		w := times(a, b).plus(times(c, d))
		exact := new(big.Int).Add(new(big.Int).Mul(bigs(a), bigs(b)), new(big.Int).Mul(bigs(c), bigs(d)))
		if w.big().Cmp(exact) != 0 || w.length() != exact.BitLen() {
			t.Fatalf("%d * %d + %d * %d = %v", a, b, c, d, w.big())
		}
		if v := times(a, b).minus(times(c, d)).big(); v.Cmp(new(big.Int).Sub(new(big.Int).Mul(bigs(a), bigs(b)), new(big.Int).Mul(bigs(c), bigs(d)))) != 0 {
			t.Fatal("a difference")
		}
		if exact.Sign() >= 0 && widest(exact) != w {
			t.Fatal("from math/big")
		}
		f, _ := new(big.Float).SetInt(exact).Float64()
		if math.Abs(w.float()-f) > math.Abs(f)*0x1p-51 {
			t.Fatal("as a float")
		}
		shift := source.Intn(130)
		down, whole := w.down(shift)
		abs := new(big.Int).Abs(exact)
		if down.big().Cmp(new(big.Int).Rsh(abs, uint(shift))) != 0 || whole != (new(big.Int).Lsh(down.big(), uint(shift)).Cmp(abs) == 0) {
			t.Fatalf("%v down %d", exact, shift)
		}
		if shift > w.length()-60 {
			near, same := w.nearest(shift)
			off := new(big.Int).Sub(new(big.Int).Lsh(bigs(near), uint(shift)), exact)
			if off.Abs(off).Lsh(off, 1).Cmp(new(big.Int).Lsh(bigs(1), uint(shift))) > 0 || same != (off.Sign() == 0) {
				t.Fatalf("%v to the nearest of 2^%d is %d", exact, shift, near)
			}
		}
	}
}

func TestProductsOfRaisedNumbersAreExact(t *testing.T) {
	for n := 0; n < 300; n++ {
		size := source.Intn(400)
		a, b := make([]int64, size), make([]int64, size)
		exact, length := new(big.Int), new(big.Int)
		x, y := make(raised, size), make(raised, size)
		for i := range a {
			a[i], b[i] = integral(precise), integral(precise)
			x[i], y[i] = raise(a[i]), raise(b[i])
			exact.Add(exact, new(big.Int).Mul(bigs(a[i]), bigs(b[i])))
			length.Add(length, new(big.Int).Mul(bigs(a[i]), bigs(a[i])))
		}
		if v := lowered(dot(x, y), size, sum(a), sum(b)); v.big().Cmp(exact) != 0 {
			t.Fatal(v.big(), exact)
		}
		if squares(a).big().Cmp(length) != 0 {
			t.Fatal("squares")
		}
	}
}

func TestHalvesGiveTheSameProducts(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for n := 0; n < 300; n++ {
		x, y := make(raised, r.Intn(5000)), make(raised, 5000)
		for i := range y {
			y[i] = 1<<52 - 1 - uint64(r.Int63n(1<<uint(n%53)))
			if i < len(x) {
				x[i] = 1<<52 - 1 - uint64(r.Int63n(1<<uint(n%7*8)))
			}
		}
		s, ok := dotHalves(x, y)
		if !ok || s != dot(x, y) {
			t.Fatal(n, len(x), s, dot(x, y))
		}
		if len(x) > 0 {
			x[len(x)/2] = 1 << 52
			if _, ok := dotHalves(x, y); ok {
				t.Fatal("a number of 53 bits")
			}
		}
	}
}

func TestLargestSumsDoNotWrap(t *testing.T) {
	const size = largest
	a, x := make([]int64, size), make(raised, size)
	for i := range a {
		a[i], x[i] = -lift, raise(-lift)
	}
	exact := new(big.Int).Lsh(bigs(1), 126)
	s := sum(a)
	if lowered(dot(x, x), size, s, s).big().Cmp(exact) != 0 || squares(a).big().Cmp(exact) != 0 {
		t.Fatal("2^26 products of 2^100")
	}
}

func TestRootsAndErrorsAreAbove(t *testing.T) {
	for n := 0; n < 3000; n++ {
		a := new(big.Int).Rand(source, new(big.Int).Lsh(bigs(1), uint(source.Intn(200))+1))
		r := rootOf(a).fraction()
		exact := new(big.Rat).SetInt(a)
		if multiply(r, r).Cmp(exact) < 0 || multiply(r, r).Cmp(multiply(exact, new(big.Rat).Add(whole(1), power(-60)))) > 0 {
			t.Fatal(a, r)
		}
	}
	third := above(big.NewRat(1, 3))
	if third.fraction().Cmp(big.NewRat(1, 3)) <= 0 || third.over(7).fraction().Cmp(big.NewRat(1, 21)) <= 0 ||
		third.times(third).fraction().Cmp(big.NewRat(1, 9)) <= 0 || third.plus(above(big.NewRat(1, 7))).fraction().Cmp(big.NewRat(10, 21)) <= 0 {
		t.Fatal("rounded downwards")
	}
}

func TestRootsOfUnity(t *testing.T) {
	limit := new(big.Rat).SetFloat64(0x1p-48)
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 12, 33, 64, 97, 360, 1021} {
		z := roots(n)
		for k, a := range z {
			angle := 2 * math.Pi * float64(k) / float64(n)
			if math.Abs(math.Ldexp(float64(a.re), -precise)-math.Cos(angle)) > 1e-14 || math.Abs(math.Ldexp(float64(a.im), -precise)-math.Sin(angle)) > 1e-14 {
				t.Fatal(n, k)
			}
			// The next root is the product with the first one, and the length is 1: both far finer than floats know.
			next, product := z[(k+1)%n], a.after(z[1%n])
			if n > 1 && (magnitude(next.re-product.re) > 4 || magnitude(next.im-product.im) > 4) {
				t.Fatal(n, k, next, product)
			}
			square := times2(new(big.Rat).SetInt(times(a.re, a.re).plus(times(a.im, a.im)).big()), -2*precise)
			if square.Sub(square, whole(1)).Abs(square).Cmp(limit) > 0 {
				t.Fatal(n, k, "length")
			}
		}
		if n%4 == 0 && (z[n/4] != turn{0, lift}) {
			t.Fatal(n, z[n/4])
		}
	}
}
