package main

// dyadics are whole numbers times powers of 2.
type dyadics struct {
	q []int64
	e []int
}

// weighted is the sum of q_r 2^(2 h_r) w_r w_r^T over rows w_r of a matrix. Column i has the numbers w_ri 2^h_r,
// rounded to units of 2^unit[i].
type weighted struct {
	kept, cols  int
	v           []int64  // column after column; at most 2^62
	x           []wide   // q_r v_ri
	total       []triple // the sum of x over a column
	unit        []int
	length, off []float64 // upper bounds of the sums of |q_r| v_ri^2, and of |q_r| times squares of what is off, for each column
}

const digits3 = 62

// newWeighted takes the sum with q_r 2^e_r for each row.
func newWeighted(w *tensor, factors dyadics) *weighted {
	rows, cols := w.shape[0], w.shape[1]
	kept, q, h := []int{}, []int64{}, []int{}
	for r := 0; r < rows; r++ {
		if factors.q[r] != 0 {
			odd := factors.e[r] & 1
			kept, q, h = append(kept, r), append(q, factors.q[r]<<uint(odd)), append(h, (factors.e[r]-odd)/2)
		}
	}
	n := len(kept)
	s := &weighted{kept: n, cols: cols, v: make([]int64, n*cols), x: make([]wide, n*cols), total: make([]triple, cols), unit: make([]int, cols)}
	s.length, s.off = make([]float64, cols), make([]float64, cols)
	spend(cols, n, 8+cols)
	parallel(cols, func(i int) {
		top := lowest
		for k, r := range kept {
			if m, e := w.at(r*cols + i); m != 0 && reach(m, e)+h[k] > top {
				top = reach(m, e) + h[k]
			}
		}
		if top == lowest {
			return
		}
		s.unit[i] = top - digits3
		for k, r := range kept {
			m, e := w.at(r*cols + i)
			v, exact := moved(m, e+h[k], s.unit[i])
			s.v[i*n+k] = v
			s.x[i*n+k] = times(q[k], v)
			s.total[i] = s.total[i].plus(s.x[i*n+k].triple())
			size := float64(magnitude(q[k]))
			s.length[i] += size * float64(v) * float64(v)
			if !exact {
				s.off[i] += size / 4
			}
		}
		// Sums of at most 2^26 numbers >= 0, each of few roundings, are off by a factor of less than 1 + 2^-25.
		s.length[i] *= 1 + 0x1p-20
		s.off[i] *= 1 + 0x1p-20
	})
	return s
}

// entry is entry (i, j) in units of 2^(unit[i] + unit[j]).
func (s *weighted) entry(i, j int) triple {
	return mixed(s.x[i*s.kept:(i+1)*s.kept], s.v[j*s.kept:(j+1)*s.kept], s.total[i])
}

// error is what rounding adds in Frobenius' norm, at most, when column i is multiplied by 2^scale[i].
//
// With V + D the exact columns, it is |V^T Q D + D^T Q V + D^T Q D| <= 2 sqrt(A B) + B for A and B the sums of
// |q| v^2 and |q| d^2, and 2 sqrt(A B) <= A 2^t + B / 2^t for every t.
func (s *weighted) error(scale []int) upper {
	a, b := nothing(), nothing()
	for i := range s.unit {
		n := 2 * (s.unit[i] + scale[i])
		a = a.plus(upper{upwards().SetFloat64(s.length[i])}.scaled(n))
		b = b.plus(upper{upwards().SetFloat64(s.off[i])}.scaled(n))
	}
	if b.f.Sign() == 0 {
		return b
	}
	t := (b.f.MantExp(nil) - a.f.MantExp(nil)) / 2
	return a.scaled(t).plus(b.scaled(-t)).plus(b)
}
