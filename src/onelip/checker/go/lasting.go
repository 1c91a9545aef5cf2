package main

import "math/big"

// lasting is a head of level float for constants of the differences of two outputs.
func (b *bundle) lasting(constant func(i, j int) *big.Rat) head {
	l := b.level
	return func(x grid, own int, radius *big.Rat) bool {
		e := execution{x, above(radius), l.numbers.lost(len(x.m))}
		l.numbers.holds(e.longest())
		for _, part := range b.blocks {
			e = part.executed(l, e)
		}
		e, last := l.ending(b.last, e)
		y := e.sample
		for j := range y.m {
			if j == own {
				continue
			}
			margin := times2(whole(y.m[own]-y.m[j]), y.e)
			margin.Sub(margin, rootOfWhole(2).times(y.off).fraction())
			wrong := rootOfWhole(2).times(e.wrong)
			if last != nil {
				wrong = lesser(wrong, last(own, j))
			}
			margin.Sub(margin, wrong.fraction())
			if multiply(radius, constant(own, j)).Cmp(margin) >= 0 {
				return false
			}
		}
		return true
	}
}

// ending is an execution after the last maps; if the very last is a matrix, also how far the differences of two outputs
// may be off, by its rows.
func (l *level) ending(maps []linear, x execution) (execution, func(i, j int) upper) {
	if len(maps) == 0 {
		return x, nil
	}
	x = l.chain(maps[:len(maps)-1], x)
	m := maps[len(maps)-1]
	d, ok := m.(*dense)
	if !ok {
		return m.executed(l, x), nil
	}
	values, sizes := d.forward.at(x.sample)
	n := d.forward.additions()
	row := func(i int) upper {
		one := sums{norm: d.row(i), total: d.row(i), terms: d.forward.terms}
		c := l.cost(&one, len(x.sample.m), 1)
		at := func(g grid) grid { return grid{g.m[i : i+1], g.e, g.off} }
		added := c.share.times(heights(at(values), at(sizes), n)).plus(c.gain.times(x.within())).plus(c.tiny)
		length := lengthOf(at(values).m, values.e).plus(values.off).plus(one.norm.times(x.within())).plus(added)
		return added.plus(l.stored(length, 1))
	}
	off := make([]upper, d.a.rows)
	for i := range off {
		off[i] = row(i)
	}
	return d.executed(l, x), func(i, j int) upper {
		return above(d.distance(i, j)).times(x.wrong).plus(off[i]).plus(off[j])
	}
}

// row is the length of a row.
func (d *dense) row(i int) upper {
	return lengthOf(d.a.m[i*d.a.cols:(i+1)*d.a.cols], d.a.e).plus(d.off)
}
