// Command client is the client's half of exec, attach and port-forward, as kubectl and the kubelet have it: the tests
// and the bench drive it. It takes the URLs that the CRI's calls return, so it needs no cluster.
//
// Without arguments it reads requests, one JSON object a line, and writes events the same way. Every request names a
// session, which ends with an event "end" (or is refused with it); several run at once. As "client serve" it is what
// listens inside of a pod.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"sync"

	"k8s.io/klog/v2"
)

// request: which fields count depends on the operation, see the file of each.
type request struct {
	Session int    `json:"session"`
	Op      string `json:"op"`

	URL       string     `json:"url"`
	Transport string     `json:"transport"`
	Protocols []string   `json:"protocols"`
	TTY       bool       `json:"tty"`
	Stdin     *inputSpec `json:"stdin"`
	Stdout    *sinkSpec  `json:"stdout"`
	Stderr    *sinkSpec  `json:"stderr"`

	// Of a forward: ports of the pod; of a connection: the forward and its port.
	Ports   []int `json:"ports"`
	Forward int   `json:"forward"`
	Port    int   `json:"port"`

	// Of what is done to a session that runs.
	Text   string  `json:"text"`
	Rate   int64   `json:"rate"`
	Width  uint16  `json:"width"`
	Height uint16  `json:"height"`
	Frames []frame `json:"frames"`
	Piece  int     `json:"piece"`
}

// session is what an operation opens.
type session interface {
	// run works until the session has ended, and says how.
	run() (map[string]any, error)
	// do carries out one more request meanwhile.
	do(request) error
	// look describes the session as it is now.
	look() map[string]any
}

var (
	sessions     = map[int]session{}
	sessionsLock sync.Mutex
	output       = json.NewEncoder(os.Stdout)
	outputLock   sync.Mutex
	// A request that ends its session is answered before the end is told.
	answering sync.Mutex
)

func main() {
	log.SetOutput(os.Stderr)
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what goes wrong is what tests expect
	if len(os.Args) > 1 {
		if os.Args[1] != "serve" {
			log.Fatalf("unknown argument %q: expected serve or nothing", os.Args[1])
		}
		serve(os.Args[2:])
	}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return // the test has ended, and with this process every connection does
		} else if err != nil {
			log.Fatal(err)
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil {
			log.Fatalf("%s: %v", line, err)
		}
		handle(req)
	}
}

func handle(req request) {
	open := map[string]func(request) (session, error){
		"exec": openExec, "forward": openForward, "connect": openConnection, "raw": openRaw,
	}[req.Op]
	if open != nil {
		// Opening waits for the server, which other sessions must not.
		go start(req, open)
		return
	}
	answering.Lock()
	defer answering.Unlock()
	s, err := sessionOf(req.Session)
	if err == nil && req.Op == "look" {
		emit(req.Session, "look", s.look())
		return
	}
	if err == nil {
		err = s.do(req)
	}
	fields := map[string]any{}
	if err != nil {
		fields["error"] = err.Error()
	}
	emit(req.Session, "done", fields)
}

func start(req request, open func(request) (session, error)) {
	s, err := open(req)
	if err != nil {
		emit(req.Session, "end", map[string]any{"error": err.Error()})
		return
	}
	sessionsLock.Lock()
	sessions[req.Session] = s
	sessionsLock.Unlock()
	emit(req.Session, "open", s.look())
	fields, err := s.run()
	if err != nil {
		fields["error"] = err.Error()
	}
	answering.Lock()
	defer answering.Unlock()
	sessionsLock.Lock()
	delete(sessions, req.Session)
	sessionsLock.Unlock()
	emit(req.Session, "end", fields)
}

func sessionOf(id int) (session, error) {
	sessionsLock.Lock()
	defer sessionsLock.Unlock()
	if s := sessions[id]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("there is no session %d", id)
}

func emit(id int, event string, fields map[string]any) {
	outputLock.Lock()
	defer outputLock.Unlock()
	all := map[string]any{"session": id, "event": event}
	for name, value := range fields {
		all[name] = value
	}
	if err := output.Encode(all); err != nil {
		os.Exit(1) // nobody reads any more
	}
}
