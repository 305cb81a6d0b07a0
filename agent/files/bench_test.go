package files

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkStage stages and switches in small files: 100 in each directory. PYRO_BENCH_DIR says where.
func BenchmarkStage(b *testing.B) {
	base := os.Getenv("PYRO_BENCH_DIR")
	if base == "" {
		base = b.TempDir()
	}
	for b.Loop() {
		place := filepath.Join(base, fmt.Sprint(time.Now().UnixNano()))
		if err := os.Mkdir(place, 0o700); err != nil {
			b.Fatal(err)
		}
		store := &Store{Root: filepath.Join(place, "workspace"), Area: filepath.Join(place, "area")}
		stage, err := store.Begin("0123456789abcdef")
		if err != nil {
			b.Fatal(err)
		}
		frame, sum, records := []byte(nil), uint32(sumStart), uint64(0)
		flush := func() {
			sum = addSum(sum, frame)
			if err := stage.Take(frame); err != nil {
				b.Fatal(err)
			}
			frame = frame[:0]
		}
		content := make([]byte, 1500)
		for i := range uint32(5000) {
			if i%100 == 0 {
				frame = Append(frame, Record{Kind: Directory, Name: fmt.Appendf(nil, "d%d", i/100), Mode: 0o755})
				records++
			}
			frame = Append(frame, Record{Kind: File, Dir: i/100 + 1, Name: fmt.Appendf(nil, "f%d", i), Mode: 0o644, Size: 1500})
			frame = Append(frame, Record{Kind: Data, Data: content})
			if records++; len(frame) > 200<<10 {
				flush()
			}
		}
		flush()
		if err := stage.Check(records, 5000*1500, sum); err != nil {
			b.Fatal(err)
		}
		if _, err := stage.Commit(); err != nil {
			b.Fatal(err)
		}
		stage.Abort()
		store.Settle()
	}
}
