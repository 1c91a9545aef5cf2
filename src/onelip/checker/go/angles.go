package main

import (
	"math"
	"math/big"
	"math/bits"
)

// Angles are whole in units of 2^-52, or where they are big in units of 2^-192.
const (
	angular  = 52
	farAngle = 1 << 10 // radians
	steps    = 64      // arctangents of multiples of 1/64 are known
)

// wideAngle is an entry of a tensor, rounded down.
func (t *tensor) wideAngle(i int) *big.Int {
	m, e := t.at(i)
	a := big.NewInt(m)
	if n := e + digits2; n >= 0 {
		return a.Lsh(a, uint(n))
	}
	return a.Rsh(a, uint(-e-digits2))
}

// around is an angle of at most 2^12 as one in [0, 2 pi]; it is off by 2^12 / 6 * 8000 < 2^23 units more.
func around(a *big.Int) *big.Int { return new(big.Int).Mod(a, new(big.Int).Lsh(pi, 1)) }

// narrow is an angle in units of 2^-52, off by less than one more.
func narrow(a *big.Int) int64 { return new(big.Int).Rsh(a, digits2-angular).Int64() }

var (
	halfTurn    = narrow(pi)
	quarterTurn = narrow(new(big.Int).Rsh(pi, 1))
	fullTurn    = narrow(new(big.Int).Lsh(pi, 1))
)

// arctangents are arctan(j / 64) in units of 2^-62, rounded down: the next one is larger by arctan(64 / (4096 + j (j + 1))).
var arctangents = func() (a [steps + 1]uint64) {
	sum := new(big.Int)
	for j := int64(0); j < steps; j++ {
		sum.Add(sum, arctangent(steps, steps*steps+j*(j+1)))
		a[j+1] = new(big.Int).Rsh(sum, digits2-places).Uint64()
	}
	return a
}()

// oddShares are 1/3, 1/5 and 1/7, rounded down.
var oddShares = [3]uint64{one / 3, one / 5, one / 7}

// direction is the angle of a point, in (-pi, pi], off by less than 4 units; 0 for 0. Numbers are at most 2^61.
//
// For the smaller over the larger one, q, and the nearest multiple c of 1/64, it is arctan c + arctan w, w = (q - c) / (1 + q c),
// |w| <= 2^-7; w - w^3 / 3 + w^5 / 5 - w^7 / 7 is off by less than w^9. Less than 16 units of 2^-62 are lost until
// these are shortened, which loses one; the multiples of pi / 2 are off by one.
func direction(x, y int64) int64 {
	least, most := uint64(magnitude(x)), uint64(magnitude(y))
	upright := most >= least
	if !upright {
		least, most = most, least
	}
	if most == 0 {
		return 0
	}
	q, _ := bits.Div64(least>>(64-places), least<<places, most)
	j := (q + one/steps/2) / (one / steps)
	near := j * (one / steps)
	gap := most64(q, near) - smallest(q, near)
	w, _ := bits.Div64(gap>>(64-places), gap<<places, one+q/steps*j)
	z := productDown(w, w)
	series := one - productUp(z, oddShares[0]-productUp(z, oddShares[1]-productUp(z, oddShares[2])))
	angle := int64(productDown(w, series))
	if q < near {
		angle = -angle
	}
	angle = (int64(arctangents[j]) + angle) >> (places - angular)
	if upright {
		angle = quarterTurn - angle
	}
	if x < 0 {
		angle = halfTurn - angle
	}
	if y < 0 {
		angle = -angle
	}
	return angle
}

// angles is a tensor of angles.
func (b *bundle) angles(v any, what string) *tensor {
	t := b.floats(v, what)
	for i := 0; i < t.length(); i++ {
		demand(math.Abs(t.double(i)) <= farAngle, "%s: an angle that does not fit: it is above 2^10", what)
	}
	return t
}
