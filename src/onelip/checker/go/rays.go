package main

// rays is a distance with a sign to two rays at the angles theta and -theta, for each pair.
type rays struct {
	turns []turn // to (cos, |sin|)
}

func (b *bundle) readRays(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "angles")
	t := b.angles(f["angles"], what)
	demand(len(t.shape) == 1 && t.length() > 0, "%s: the angles do not fit: not one for each pair", what)
	demand(input[0] == 2*t.length(), "%s: the channels do not fit: not two for each pair", what)
	spend(1<<13, t.length())
	keep(t.length(), 16)
	r := &rays{make([]turn, t.length())}
	for i := range r.turns {
		r.turns[i] = turned(around(t.wideAngle(i)))
		r.turns[i].im = magnitude(r.turns[i].im)
	}
	outputs := append([]int{len(r.turns)}, input[1:]...)
	return &activation{outputs: outputs, square: whole(1), constant: above(whole(1)), apply: r.apply}
}

// apply is the length R times sin of psi - theta, held in [-pi/2, pi/2]: theta in [0, pi] is that of the cosine and |sin|, psi in
// [0, pi] that of x and |y|. So it is off by no more than R times what theta, and R for the length of a turn, are off by: each by
// less than 2^-50, and both together by less than 2^-48.
func (r *rays) apply(x grid) grid {
	pairs := len(r.turns)
	area := len(x.m) / (2 * pairs)
	spend(1<<8, pairs, area)
	sums := make([]wide, pairs*area)
	rounded := 0
	for i := range sums {
		t, first, second := r.turns[i/area], x.m[i], magnitude(x.m[i+len(sums)])
		if int64(times(t.re, first).plus(times(t.im, second)).hi) >= 0 {
			sums[i] = times(t.re, second).minus(times(t.im, first))
			continue
		}
		square := times(first, first).plus(times(second, second)).big()
		length := widest(square.Sqrt(square.Lsh(square, 2*precise)))
		rounded++
		if t.re < 0 {
			length = wide{}.minus(length)
		}
		sums[i] = length
	}
	y := settled(sums, x.e-precise)
	y.off = y.off.plus(x.off).plus(lengthOf(x.m, x.e).scaled(2 - precise)).plus(rounding(rounded, x.e-precise+1))
	return y
}
