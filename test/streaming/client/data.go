package main

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// inputSpec: what a session sends: text, then so many random bytes; then the end, unless it is kept open.
type inputSpec struct {
	Text  string `json:"text"`
	Bytes int64  `json:"bytes"`
	Open  bool   `json:"open"`
}

// input is what a session sends, with its digest.
type input struct {
	lock   sync.Mutex
	change *sync.Cond
	text   []byte
	random *rand.ChaCha8
	left   int64
	open   bool
	sent   int64
	digest hash.Hash
}

func newInput(spec *inputSpec) *input {
	if spec == nil {
		return nil
	}
	i := &input{text: []byte(spec.Text), left: spec.Bytes, open: spec.Open, digest: sha256.New()}
	i.random = rand.NewChaCha8([32]byte{byte(spec.Bytes), 7})
	i.change = sync.NewCond(&i.lock)
	return i
}

func (i *input) Read(p []byte) (int, error) {
	i.lock.Lock()
	defer i.lock.Unlock()
	for len(i.text) == 0 && i.left == 0 && i.open {
		i.change.Wait()
	}
	n := copy(p, i.text)
	i.text = i.text[n:]
	if n == 0 && i.left > 0 {
		n = int(min(int64(len(p)), i.left))
		_, _ = i.random.Read(p[:n]) // never fails
		i.left -= int64(n)
	}
	if n == 0 {
		return 0, io.EOF
	}
	i.sent += int64(n)
	i.digest.Write(p[:n])
	return n, nil
}

func (i *input) write(text string) {
	i.lock.Lock()
	defer i.lock.Unlock()
	i.text = append(i.text, text...)
	i.change.Broadcast()
}

func (i *input) close() {
	i.lock.Lock()
	defer i.lock.Unlock()
	i.open = false
	i.change.Broadcast()
}

func (i *input) isOpen() bool {
	if i == nil {
		return true
	}
	i.lock.Lock()
	defer i.lock.Unlock()
	return i.open
}

func (i *input) look() map[string]any {
	i.lock.Lock()
	defer i.lock.Unlock()
	return map[string]any{"bytes": i.sent, "sha256": hex.EncodeToString(i.digest.Sum(nil))}
}

const (
	unlimited = -1
	// So much of the beginning is kept as text.
	maxText = 64 << 10
)

// sinkSpec: how a session receives.
type sinkSpec struct {
	// Bytes a second; 0 reads nothing, -1 as fast as it comes.
	Rate int64 `json:"rate"`
	// Without a digest it is faster.
	Digest bool `json:"digest"`
}

// sink is what a session has received.
type sink struct {
	lock     sync.Mutex
	change   *sync.Cond
	rate     int64
	received int64
	text     []byte
	digest   hash.Hash
	onFirst  func()
}

func newSink(spec *sinkSpec, onFirst func()) *sink {
	if spec == nil {
		return nil
	}
	s := &sink{rate: spec.Rate, onFirst: onFirst}
	s.change = sync.NewCond(&s.lock)
	if spec.Digest {
		s.digest = sha256.New()
	}
	return s
}

// How often a slow reader reads.
const tick = 20 * time.Millisecond

func (s *sink) Write(p []byte) (int, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for rest := p; len(rest) > 0; {
		for s.rate == 0 {
			s.change.Wait()
		}
		n := len(rest)
		if s.rate > 0 {
			n = min(n, max(1, int(s.rate*int64(tick)/int64(time.Second))))
		}
		s.take(rest[:n])
		rest = rest[n:]
		if s.rate > 0 {
			s.lock.Unlock()
			time.Sleep(tick)
			s.lock.Lock()
		}
	}
	return len(p), nil
}

func (s *sink) take(p []byte) {
	if s.received == 0 && s.onFirst != nil {
		s.onFirst()
	}
	s.received += int64(len(p))
	if room := maxText - len(s.text); room > 0 {
		s.text = append(s.text, p[:min(room, len(p))]...)
	}
	if s.digest != nil {
		s.digest.Write(p)
	}
}

func (s *sink) setRate(rate int64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.rate = rate
	s.change.Broadcast()
}

func (s *sink) look() map[string]any {
	s.lock.Lock()
	defer s.lock.Unlock()
	fields := map[string]any{"bytes": s.received, "text": string(s.text)}
	if s.digest != nil {
		fields["sha256"] = hex.EncodeToString(s.digest.Sum(nil))
	}
	return fields
}
