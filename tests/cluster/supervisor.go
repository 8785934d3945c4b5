package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// pauseBeforeRestart is how long a program that ended stays away.
const pauseBeforeRestart = 500 * time.Millisecond

// program is one that the first process keeps running.
type program struct {
	name   string
	argv   []string
	wanted bool
	pid    int
	starts int
	last   string
}

// supervisor starts, restarts and reaps. It is the first process of its namespace, so every orphan is its child.
type supervisor struct {
	mutex    sync.Mutex
	programs map[string]*program
	// waiters learn how a process ended that is not a program.
	waiters map[int]chan syscall.WaitStatus
}

func newSupervisor() *supervisor {
	s := &supervisor{programs: map[string]*program{}, waiters: map[int]chan syscall.WaitStatus{}}
	children := make(chan os.Signal, 64)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		// A signal may stand for several children, and one is lost at times: look anyway.
		tick := time.NewTicker(time.Second)
		for {
			select {
			case <-children:
			case <-tick.C:
			}
			s.reap()
		}
	}()
	return s
}

func environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + shared, "TMPDIR=" + shared + "/tmp", "LANG=C.UTF-8"}
}

// spawn starts a process that logs to a file. The mutex is held, lest it is reaped before it is known.
func spawn(argv []string, log string) (int, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer null.Close()
	path := argv[0]
	if !strings.Contains(path, "/") {
		path = ""
		for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if _, err := os.Stat(folder + "/" + argv[0]); err == nil {
				path = folder + "/" + argv[0]
				break
			}
		}
		if path == "" {
			return 0, fmt.Errorf("there is no program %s", argv[0])
		}
	}
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   shared,
		Env:   environment(),
		Files: []uintptr{null.Fd(), file.Fd(), file.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// add makes a program known; it starts with start.
func (s *supervisor) add(name string, argv ...string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.programs[name] = &program{name: name, argv: argv}
}

func (s *supervisor) start(names ...string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, name := range names {
		p := s.programs[name]
		if p == nil {
			return fmt.Errorf("there is no program %q", name)
		}
		p.wanted = true
		if p.pid == 0 {
			if err := s.launch(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *supervisor) launch(p *program) error {
	pid, err := spawn(p.argv, shared+"/logs/"+p.name+".log")
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", p.name, err)
	}
	p.pid = pid
	p.starts++
	return nil
}

// stop ends a program with a signal and waits until it is gone; unless it is wanted, it stays away.
func (s *supervisor) stop(name string, kind syscall.Signal, wanted bool) error {
	s.mutex.Lock()
	p := s.programs[name]
	if p == nil {
		s.mutex.Unlock()
		return fmt.Errorf("there is no program %q", name)
	}
	p.wanted = wanted
	pid := p.pid
	s.mutex.Unlock()
	if pid == 0 {
		return nil
	}
	_ = syscall.Kill(pid, kind)
	for tries := 0; ; tries++ {
		s.mutex.Lock()
		gone := p.pid != pid
		s.mutex.Unlock()
		if gone {
			return nil
		}
		if tries == 300 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// run waits for a short program and fails unless it succeeds.
func (s *supervisor) run(name string, argv ...string) error {
	ended := make(chan syscall.WaitStatus, 1)
	s.mutex.Lock()
	pid, err := spawn(argv, shared+"/logs/"+name+".log")
	if err == nil {
		s.waiters[pid] = ended
	}
	s.mutex.Unlock()
	if err != nil {
		return err
	}
	if status := <-ended; status.ExitStatus() != 0 {
		return fmt.Errorf("%s failed (%s); see logs/%s.log", strings.Join(argv, " "), describe(status), name)
	}
	return nil
}

func (s *supervisor) reap() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if waiter := s.waiters[pid]; waiter != nil {
			delete(s.waiters, pid)
			waiter <- status
			continue
		}
		for _, p := range s.programs {
			if p.pid == pid {
				p.pid = 0
				p.last = describe(status)
				time.AfterFunc(pauseBeforeRestart, func() { s.again(p) })
			}
		}
	}
}

func (s *supervisor) again(p *program) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if p.wanted && p.pid == 0 {
		if err := s.launch(p); err != nil {
			p.last = err.Error()
			time.AfterFunc(pauseBeforeRestart, func() { s.again(p) })
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// status has a line per program.
func (s *supervisor) status() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var lines []string
	for _, p := range s.programs {
		state := "stopped"
		if p.pid != 0 {
			state = "running"
		} else if p.wanted {
			state = "ended"
		}
		line := fmt.Sprintf("%-20s %-8s starts %d", p.name, state, p.starts)
		if p.last != "" {
			line += "  last end: " + p.last
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// control answers one line per connection: status, or start, stop, restart or kill and the name of a program.
func (s *supervisor) control(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			_ = connection.SetDeadline(time.Now().Add(time.Minute))
			line, err := bufio.NewReader(connection).ReadString('\n')
			if err != nil {
				return
			}
			answer, err := s.obey(strings.Fields(line))
			if err != nil {
				answer = "error: " + err.Error() + "\n"
			}
			_, _ = connection.Write([]byte(answer))
		}()
	}
}

func (s *supervisor) obey(words []string) (string, error) {
	switch {
	case len(words) == 1 && words[0] == "status":
		return s.status(), nil
	case len(words) == 2 && words[0] == "start":
		return "ok\n", s.start(words[1])
	case len(words) == 2 && words[0] == "stop":
		return "ok\n", s.stop(words[1], syscall.SIGTERM, false)
	case len(words) == 2 && words[0] == "restart":
		if err := s.stop(words[1], syscall.SIGTERM, true); err != nil {
			return "", err
		}
		return "ok\n", s.start(words[1])
	case len(words) == 2 && words[0] == "kill":
		return "ok\n", s.stop(words[1], syscall.SIGKILL, true)
	}
	return "", fmt.Errorf("expected status, or start, stop, restart or kill and a program")
}
