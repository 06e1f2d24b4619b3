package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// A forward is one session with a pod, over which connections go:
//
//	spdy, tunnel                  client-go's PortForwarder: listeners on localhost, as kubectl has them
//	spdy-streams, tunnel-streams  pairs of streams on the same dialers, which outlive a refused connection
//	channels                      a WebSocket with two channels for each port
type forward interface {
	session
	connect(port int, streams streams) (session, error)
}

func openForward(req request) (session, error) {
	switch req.Transport {
	case "spdy", "tunnel":
		return openForwarder(req)
	case "spdy-streams", "tunnel-streams":
		return openPairs(req)
	case "channels":
		return openPortChannels(req)
	}
	return nil, fmt.Errorf("unknown transport %q of a forward", req.Transport)
}

func openConnection(req request) (session, error) {
	s, err := sessionOf(req.Forward)
	if err != nil {
		return nil, err
	}
	f, ok := s.(forward)
	if !ok {
		return nil, fmt.Errorf("session %d is no forward", req.Forward)
	}
	return f.connect(req.Port, newStreams(req))
}

func dialerOf(req request) (httpstream.Dialer, error) {
	location, err := url.Parse(req.URL)
	if err != nil {
		return nil, err
	}
	if req.Transport == "tunnel" || req.Transport == "tunnel-streams" {
		return portforward.NewSPDYOverWebsocketDialer(location, &rest.Config{})
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", location), nil
}

// forwarder is client-go's PortForwarder.
type forwarder struct {
	*portforward.PortForwarder
	stop  chan struct{}
	once  sync.Once
	ended chan error
}

func openForwarder(req request) (session, error) {
	dialer, err := dialerOf(req)
	if err != nil {
		return nil, err
	}
	ports := []string{}
	for _, port := range req.Ports {
		ports = append(ports, ":"+strconv.Itoa(port))
	}
	f := &forwarder{stop: make(chan struct{}), ended: make(chan error, 1)}
	ready := make(chan struct{})
	f.PortForwarder, err = portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, f.stop, ready, io.Discard, io.Discard)
	if err != nil {
		return nil, err
	}
	go func() { f.ended <- f.ForwardPorts() }()
	select {
	case <-ready:
		return f, nil
	case err := <-f.ended:
		return nil, err
	}
}

func (f *forwarder) run() (map[string]any, error) {
	err := <-f.ended
	return map[string]any{}, err
}

func (f *forwarder) look() map[string]any { return map[string]any{} }

func (f *forwarder) do(req request) error {
	if req.Op != "cancel" {
		return fmt.Errorf("a forward cannot %q", req.Op)
	}
	f.once.Do(func() { close(f.stop) })
	return nil
}

func (f *forwarder) connect(port int, streams streams) (session, error) {
	ports, err := f.GetPorts()
	if err != nil {
		return nil, err
	}
	for _, forwarded := range ports {
		if int(forwarded.Remote) != port {
			continue
		}
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(forwarded.Local))))
		if err != nil {
			return nil, err
		}
		tcp := conn.(*net.TCPConn)
		abort := func() error {
			_ = tcp.SetLinger(0) // the other side sees a reset
			return tcp.Close()
		}
		return &connection{streams: streams, data: tcp, finish: tcp.CloseWrite, abort: abort, discard: tcp.Close}, nil
	}
	return nil, fmt.Errorf("port %d is not forwarded", port)
}

// pairs forwards by two streams for each connection.
type pairs struct {
	conn httpstream.Connection
	lock sync.Mutex
	next int
}

func openPairs(req request) (session, error) {
	dialer, err := dialerOf(req)
	if err != nil {
		return nil, err
	}
	conn, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		return nil, fmt.Errorf("the server chose %q", protocol)
	}
	return &pairs{conn: conn}, nil
}

func (p *pairs) run() (map[string]any, error) {
	<-p.conn.CloseChan()
	return map[string]any{}, nil
}

func (p *pairs) look() map[string]any { return map[string]any{} }

func (p *pairs) do(req request) error {
	if req.Op != "cancel" {
		return fmt.Errorf("a forward cannot %q", req.Op)
	}
	return p.conn.Close()
}

func (p *pairs) connect(port int, streams streams) (session, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.next++
	headers := http.Header{}
	headers.Set("port", strconv.Itoa(port))
	headers.Set("requestID", strconv.Itoa(p.next))
	headers.Set("streamType", "error")
	failure, err := p.conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	if err := failure.Close(); err != nil {
		return nil, err
	}
	headers.Set("streamType", "data")
	data, err := p.conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	discard := func() error {
		p.conn.RemoveStreams(data, failure)
		return data.Reset()
	}
	return &connection{
		streams: streams, data: data, failure: failure, finish: data.Close, abort: data.Reset, discard: discard,
	}, nil
}

// connection is one through a forward.
type connection struct {
	streams streams
	data    io.ReadWriter
	// failure is the error stream, where the connection has one of its own.
	failure io.Reader
	// finish is the half-close, abort ends both ways, discard is what comes after the end.
	finish, abort, discard func() error
}

func (c *connection) run() (map[string]any, error) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if c.streams.input != nil {
			_, _ = io.Copy(c.data, c.streams.input) // whoever reads says when the connection has ended
			_ = c.finish()
		}
	}()
	var text []byte
	failed := make(chan error, 1)
	go func() {
		var err error
		if c.failure != nil {
			text, err = io.ReadAll(c.failure)
		}
		failed <- err
	}()
	_, err := io.Copy(c.streams.output, c.data)
	if !c.streams.input.isOpen() {
		<-sent
	}
	_ = c.discard()
	if failure := <-failed; err == nil {
		err = failure
	}
	fields := c.look()
	fields["status"] = string(bytes.TrimSpace(text))
	return fields, err
}

func (c *connection) look() map[string]any { return c.streams.look() }

func (c *connection) do(req request) error {
	if req.Op == "cancel" {
		return c.abort()
	}
	return c.streams.do(req)
}
