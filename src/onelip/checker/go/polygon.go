package main

import "math/big"

// polygon is the distance to a chain of segments, for each pair of channels.
type polygon struct {
	corners *tensor // (k, 2, pairs)
	top     int     // they are below 2^top
}

func (b *bundle) readPolygon(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "corners")
	p := &polygon{corners: b.floats(f["corners"], what), top: lowest}
	shape := p.corners.shape
	demand(len(shape) == 3 && shape[1] == 2 && p.corners.length() > 0, "%s: the corners do not fit: they are (k, 2, pairs)", what)
	demand(input[0] == 2*shape[2], "%s: the channels do not fit: not two for each pair", what)
	for i := 0; i < p.corners.length(); i++ {
		p.top = most(p.top, reach(p.corners.at(i)))
	}
	outputs := append([]int{shape[2]}, input[1:]...)
	return &activation{outputs: outputs, square: whole(1), constant: above(whole(1)), apply: p.apply}
}

// spare is how many bits below the largest number a unit is.
const spare = 200

// vector is a point of the plane, in units.
type vector [2]*big.Int

func (a vector) minus(b vector) vector {
	return vector{new(big.Int).Sub(a[0], b[0]), new(big.Int).Sub(a[1], b[1])}
}

func (a vector) dot(b vector) *big.Int {
	x, y := new(big.Int).Mul(a[0], b[0]), new(big.Int).Mul(a[1], b[1])
	return x.Add(x, y)
}

func (a vector) cross(b vector) *big.Int {
	x, y := new(big.Int).Mul(a[0], b[1]), new(big.Int).Mul(a[1], b[0])
	return x.Sub(x, y)
}

// inUnits is m 2^e in units of 2^unit, rounded down.
func inUnits(m int64, e, unit int) *big.Int {
	a := big.NewInt(m)
	if m == 0 {
		return a
	}
	if e >= unit {
		return a.Lsh(a, uint(e-unit))
	}
	return a.Rsh(a, uint(unit-e))
}

func (p *polygon) apply(x grid) grid {
	top := p.top
	for _, m := range x.m {
		top = most(top, reach(m, x.e))
	}
	unit := top - spare
	count, pairs := p.corners.shape[0], p.corners.shape[2]
	area := len(x.m) / (2 * pairs)
	spend(1<<8, p.corners.length())
	spend(1<<10, count, pairs*area)
	all := make([]span, pairs*area)
	for pair := 0; pair < pairs && top > lowest; pair++ {
		chain := make([]vector, count)
		for k := range chain {
			for side := range chain[k] {
				m, e := p.corners.at((2*k+side)*pairs + pair)
				chain[k][side] = inUnits(m, e, unit)
			}
		}
		along, squares := make([]vector, count-1), make([]*big.Int, count-1)
		for k := range along {
			along[k] = chain[k+1].minus(chain[k])
			squares[k] = along[k].dot(along[k])
		}
		for i := pair * area; i < (pair+1)*area; i++ {
			at := vector{inUnits(x.m[i], x.e, unit), inUnits(x.m[i+len(all)], x.e, unit)}
			all[i] = lengthAbout(nearest(at, chain, along, squares), unit)
		}
	}
	y := spanned(all)
	y.off = y.off.plus(x.off)
	return y
}

// nearest is the square of the distance of a point to a chain, rounded down.
func nearest(at vector, chain, along []vector, squares []*big.Int) *big.Int {
	w := at.minus(chain[0])
	least := w.dot(w)
	for k, d := range along {
		share := w.dot(d)
		next := at.minus(chain[k+1])
		square := next.dot(next)
		if share.Sign() > 0 && share.Cmp(squares[k]) < 0 { // the nearest point is inside
			square = w.cross(d)
			square.Quo(square.Mul(square, square), squares[k])
		}
		if square.Cmp(least) < 0 {
			least = square
		}
		w = next
	}
	return least
}

// lengthAbout is the root of a square that was rounded down, of points each of which is off by less than 2^(1/2) units.
func lengthAbout(square *big.Int, unit int) span {
	const off = 4 // 1 + 2 * 2^(1/2), rounded upwards
	root := new(big.Int).Sqrt(square)
	high := dyad{new(big.Int).Add(root, big.NewInt(off)), unit}.span()
	low := new(big.Int).Sub(root, big.NewInt(off))
	if low.Sign() < 0 {
		low.SetInt64(0)
	}
	n := high.e - unit
	return span{low: low.Rsh(low, uint(n)).Uint64(), high: high.high, e: high.e}
}
