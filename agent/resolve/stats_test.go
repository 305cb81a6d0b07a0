package resolve

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCountsFitIntoWhatIsReadOfThem(t *testing.T) {
	const most = 1 << 20 // STATS_BYTES_MOST in network/counters.py
	path := filepath.Join(t.TempDir(), "resolver.json")
	s := newStats(path)
	long := strings.Repeat(strings.Repeat("n", 62)+".", 5)[:maxName]
	for address := range maxAddresses + 1 {
		for number := range maxLearnedNames + 1 {
			name := fmt.Sprintf("%04d", number) + long[4:]
			s.refused(name)
			record := make([]byte, addressRecord)
			copy(record[addressRecord-4:], []byte{200, byte(100 + number>>8), byte(100 + number%100), byte(100 + address)})
			s.learned(name, record)
		}
	}
	s.close()
	data, err := os.ReadFile(path)
	if err != nil || len(data) > most {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	var written Counts
	if err := json.Unmarshal(data, &written); err != nil || len(written.Names) != maxLearnedNames {
		t.Fatalf("%d names, %v", len(written.Names), err)
	}
	pairs := 0
	for _, known := range written.Names {
		pairs += len(known)
	}
	if pairs != maxLearnedPairs {
		t.Errorf("%d addresses", pairs)
	}
}
