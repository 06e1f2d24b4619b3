package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// execution is one exec or attach, with the executors that kubectl has.
type execution struct {
	ctx      context.Context
	cancel   context.CancelFunc
	executor remotecommand.Executor
	streams  streams
	sizes    chan remotecommand.TerminalSize
}

// streams are the ends of a session that its user holds.
type streams struct {
	input  *input
	output *sink
	errors *sink
	tty    bool
}

func newStreams(req request) streams {
	first := func() { emit(req.Session, "first", nil) }
	return streams{newInput(req.Stdin), newSink(req.Stdout, first), newSink(req.Stderr, nil), req.TTY}
}

func (s streams) look() map[string]any {
	fields := map[string]any{}
	if s.input != nil {
		fields["stdin"] = s.input.look()
	}
	if s.output != nil {
		fields["stdout"] = s.output.look()
	}
	if s.errors != nil {
		fields["stderr"] = s.errors.look()
	}
	return fields
}

// do carries out what all sessions with streams can: write TEXT, close stdin, rate N of the output.
func (s streams) do(req request) error {
	switch {
	case req.Op == "write" && s.input != nil:
		s.input.write(req.Text)
	case req.Op == "close" && s.input != nil:
		s.input.close()
	case req.Op == "rate" && s.output != nil:
		s.output.setRate(req.Rate)
	default:
		return fmt.Errorf("this session cannot %q", req.Op)
	}
	return nil
}

// openExec: transport spdy or websocket is client-go's, channels our own for what client-go has no more.
func openExec(req request) (session, error) {
	if req.Transport == "channels" {
		return openChannels(req)
	}
	executor, err := newExecutor(req)
	if err != nil {
		return nil, err
	}
	e := &execution{executor: executor, streams: newStreams(req), sizes: make(chan remotecommand.TerminalSize, 8)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

func newExecutor(req request) (remotecommand.Executor, error) {
	config := &rest.Config{}
	switch req.Transport {
	case "spdy":
		location, err := url.Parse(req.URL)
		if err != nil {
			return nil, err
		}
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", location, req.Protocols...)
	case "websocket":
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", req.URL, req.Protocols...)
	}
	return nil, fmt.Errorf("unknown transport %q: expected spdy, websocket or channels", req.Transport)
}

func (e *execution) run() (map[string]any, error) {
	defer e.cancel()
	options := remotecommand.StreamOptions{Tty: e.streams.tty}
	// An interface that holds a nil pointer is not nil.
	if e.streams.input != nil {
		options.Stdin = e.streams.input
	}
	if e.streams.output != nil {
		options.Stdout = e.streams.output
	}
	if e.streams.errors != nil {
		options.Stderr = e.streams.errors
	}
	if e.streams.tty {
		options.TerminalSizeQueue = e
	}
	err := e.executor.StreamWithContext(e.ctx, options)
	fields := e.look()
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		fields["exitCode"] = exit.Code
		err = nil
	} else if err == nil {
		fields["exitCode"] = 0
	}
	return fields, err
}

// Next is the terminal's next size, as the executors ask for it.
func (e *execution) Next() *remotecommand.TerminalSize {
	select {
	case size := <-e.sizes:
		return &size
	case <-e.ctx.Done():
		return nil
	}
}

func (e *execution) look() map[string]any { return e.streams.look() }

func (e *execution) do(req request) error {
	switch req.Op {
	case "resize":
		e.sizes <- remotecommand.TerminalSize{Width: req.Width, Height: req.Height}
		return nil
	case "cancel":
		e.cancel()
		return nil
	}
	return e.streams.do(req)
}
