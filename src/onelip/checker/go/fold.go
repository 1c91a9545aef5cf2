package main

import "math/big"

// fold turns and mirrors points of the plane: at a ray r with a peak p, the angle phi becomes p - d, and d is phi - r, which
// mirrors, or r - phi, which turns.
type fold struct {
	count, pairs   int
	rays, peaks    []int64 // rays are in [0, 2 pi]
	mirrors, spins []turn  // p + r and p - r
}

func (b *bundle) readFold(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "rays", "peaks")
	rays, peaks := b.angles(f["rays"], what), b.angles(f["peaks"], what)
	demand(len(rays.shape) == 2 && rays.length() > 0 && tuple(rays.shape) == tuple(peaks.shape), "%s: rays and peaks do not fit together", what)
	demand(input[0] == 2*rays.shape[1], "%s: the channels do not fit: not two for each pair", what)
	n := rays.length()
	spend(1<<14, n)
	keep(n, 48)
	o := &fold{rays.shape[0], rays.shape[1], make([]int64, n), make([]int64, n), make([]turn, n), make([]turn, n)}
	for i := range o.rays {
		r, p := rays.wideAngle(i), peaks.wideAngle(i)
		o.rays[i], o.peaks[i] = narrow(around(r)), narrow(p)
		o.mirrors[i] = turned(around(new(big.Int).Add(p, r)))
		o.spins[i] = turned(around(p.Sub(p, r)))
	}
	return &activation{outputs: input, square: whole(1), constant: above(whole(1)), apply: o.apply}
}

// chosen is the turn that takes a point to where it goes, and whether it mirrors.
//
// Directions are off by 4 units, rays and peaks by 1, a full turn by 1: the height of a peak by 8 at most. So the angle
// of the highest one is off by at most 16, and as much if d is 0 or pi but for that, and phi is on the wrong side.
func (o *fold) chosen(x, y int64, pair int) (turn, bool) {
	phi, highest, at, mirrored := direction(x, y), int64(-1<<63), 0, false
	for i := pair; i < len(o.rays); i += o.pairs {
		d := phi - o.rays[i]
		if d <= -halfTurn {
			d += fullTurn
		}
		if d <= -halfTurn { // no more than rounding, or from the other end
			d += fullTurn
		}
		if h := o.peaks[i] - magnitude(d); h > highest {
			highest, at, mirrored = h, i, d > 0
		}
	}
	if mirrored {
		return o.mirrors[at], true
	}
	return o.spins[at], false
}

// apply is off by 32 units of 2^-52 of an angle, and by what turns are off by, 2^-49 of a length.
func (o *fold) apply(x grid) grid {
	area := len(x.m) / (2 * o.pairs)
	spend(1<<7, len(x.m))
	spend(1, len(x.m), o.count)
	sums := make([]wide, len(x.m))
	for pair := 0; pair < o.pairs; pair++ {
		for p := 0; p < area; p++ {
			i, j := 2*pair*area+p, (2*pair+1)*area+p
			t, mirrored := o.chosen(x.m[i], x.m[j], pair)
			u, v := times(t.re, x.m[i]), times(t.im, x.m[j])
			w, z := times(t.im, x.m[i]), times(t.re, x.m[j])
			if mirrored { // the angle of t, less that of the point
				sums[i], sums[j] = u.plus(v), w.minus(z)
			} else {
				sums[i], sums[j] = u.minus(v), w.plus(z)
			}
		}
	}
	y := settled(sums, x.e-precise)
	y.off = y.off.plus(x.off).plus(lengthOf(x.m, x.e).scaled(5 - angular + 1))
	return y
}
