package main

import (
	"sync"
	"sync/atomic"
)

var workers = 1

// parallel calls f(0), ..., f(n - 1); a panic in any of them goes on in the caller.
func parallel(n int, f func(int)) {
	if workers == 1 || n <= 1 {
		for i := 0; i < n; i++ {
			f(i)
		}
		return
	}
	var group sync.WaitGroup
	var next int64
	failures := make(chan any, workers)
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if failure := recover(); failure != nil {
					failures <- failure
				}
			}()
			for {
				i := int(atomic.AddInt64(&next, 1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		}()
	}
	group.Wait()
	select {
	case failure := <-failures:
		panic(failure)
	default:
	}
}
