package main

import "math/big"

// seriesBelow says whether |sum of (i y)^k / k! for k below n| <= norm for all |y| <= c, by an exact proof.
//
// The square of the left side is a polynomial in u = y^2, here divided into norm^2 minus it, as a
// polynomial of v = u / c^2 on [0, 1]. Where all its Bernstein coefficients are >= 0, so is it; where
// an end is below 0, so is it not; else the interval is halved.
func seriesBelow(c *big.Rat, n int, norm *big.Rat) bool {
	factorial := []*big.Int{big.NewInt(1)}
	for k := 1; k < n; k++ {
		factorial = append(factorial, new(big.Int).Mul(factorial[k-1], big.NewInt(int64(k))))
	}
	// More of the axis than |y| <= c, so that powers of the end are no longer than they have to be.
	square := above(larger(multiply(c, c), power(-64))).fraction()
	a := make([]*big.Rat, n) // coefficients of v^d, d = 0 ... n - 1
	scale := whole(1)
	for d := range a {
		a[d] = new(big.Rat)
		// The terms i^k and i^l with k + l = 2 d: i^k conj(i^l) = i^(k - l), real as k - l is even.
		for k := 0; k < n; k++ {
			l := 2*d - k
			if l < 0 || l >= n {
				continue
			}
			t := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Mul(factorial[k], factorial[l]))
			if (k-l)%4 == 0 {
				t.Neg(t)
			}
			a[d].Add(a[d], t)
		}
		a[d].Mul(a[d], scale)
		scale = multiply(scale, square)
	}
	a[0].Add(a[0], multiply(norm, norm))
	end := new(big.Rat)
	for _, x := range a {
		end.Add(end, x)
	}
	if end.Sign() < 0 {
		return false
	}
	return neverNegative(a)
}

// neverNegative says whether a polynomial is >= 0 on [0, 1]; false also where too many halvings do not tell.
func neverNegative(a []*big.Rat) bool {
	degree := len(a) - 1
	common := big.NewInt(1)
	b := make([]*big.Rat, len(a))
	for i := range b {
		b[i] = new(big.Rat)
		for j := 0; j <= i; j++ {
			ratio := new(big.Rat).SetFrac(new(big.Int).Binomial(int64(i), int64(j)), new(big.Int).Binomial(int64(degree), int64(j)))
			b[i].Add(b[i], ratio.Mul(ratio, a[j]))
		}
		d := b[i].Denom()
		common.Mul(common, new(big.Int).Quo(d, new(big.Int).GCD(nil, nil, d, common)))
	}
	first := make([]*big.Int, len(b))
	for i := range b {
		first[i] = new(big.Int).Mul(b[i].Num(), new(big.Int).Quo(common, b[i].Denom()))
	}
	type piece struct {
		b     []*big.Int
		depth int
	}
	todo := []piece{{first, 0}}
	for budget := 4096; len(todo) > 0; budget-- {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.b[0].Sign() < 0 || p.b[degree].Sign() < 0 || budget == 0 || p.depth > 100 {
			return false
		}
		fine := true
		for _, x := range p.b {
			fine = fine && x.Sign() >= 0
		}
		if fine {
			continue
		}
		left, right := halves(p.b)
		todo = append(todo, piece{right, p.depth + 1}, piece{left, p.depth + 1})
	}
	return true
}

// halves is de Casteljau's scheme at 1/2; every coefficient is multiplied by 2^degree, which keeps them whole.
func halves(b []*big.Int) (left, right []*big.Int) {
	degree := len(b) - 1
	left, right = make([]*big.Int, len(b)), make([]*big.Int, len(b))
	row := append([]*big.Int{}, b...)
	for k := 0; k <= degree; k++ {
		// row has 2^k times the scheme's k-th row.
		left[k] = new(big.Int).Lsh(row[0], uint(degree-k))
		right[degree-k] = new(big.Int).Lsh(row[degree-k], uint(degree-k))
		next := make([]*big.Int, degree-k)
		for i := range next {
			next[i] = new(big.Int).Add(row[i], row[i+1])
		}
		row = next
	}
	return left, right
}
