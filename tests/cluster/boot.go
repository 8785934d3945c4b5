package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// extraFlags collects --arg PROGRAM=FLAG.
type extraFlags map[string][]string

func (e extraFlags) String() string { return "" }
func (e extraFlags) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found || programs[name] == nil {
		return fmt.Errorf("expected PROGRAM=FLAG, for example apiserver=--v=4")
	}
	e[name] = append(e[name], value)
	return nil
}

// boot starts a cluster and ends once its API is served; says on stderr what it does.
func boot(arguments []string) error {
	flags := flag.NewFlagSet("boot", flag.ContinueOnError)
	state := flags.String("state", "", "folder of the cluster; must not exist, or be empty")
	pause := flags.String("pause", "", "the static program that is the first process of pods")
	noKubelet := flags.Bool("no-kubelet", false, "a control plane without a real node")
	metrics := flags.Bool("metrics", false, "measure what pods use")
	apiPortFlag := flags.Int("api-port", 0, "port of the API on 127.0.0.1; 0 chooses one")
	registryPort := flags.Int("registry-port", 0, "port of the registry on 127.0.0.1; 0 chooses one")
	extra := extraFlags{}
	flags.Var(extra, "arg", "PROGRAM=FLAG: a further flag of a program; may be repeated")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *state == "" || *pause == "" {
		return fmt.Errorf("--state and --pause are needed")
	}
	if err := os.MkdirAll(*state, 0o755); err != nil {
		return err
	}
	var err error
	if *state, err = filepath.Abs(*state); err != nil {
		return err
	}
	api, port, err := listen(*apiPortFlag)
	if err != nil {
		return err
	}
	settings := &Settings{Kubelet: !*noKubelet, Metrics: *metrics && !*noKubelet, Extra: extra, APIPort: port}
	registry, port, err := listen(*registryPort)
	if err != nil {
		return err
	}
	settings.RegistryPort = port
	// The link is also the claim on the index: making it fails where it exists.
	if settings.Index, err = claim(); err != nil {
		return err
	}
	return launch(*state, *pause, settings, api, registry)
}

func launch(state, pause string, settings *Settings, api, registry *os.File) error {
	// Known from here on, so that `down` finds what a failure below leaves.
	if err := settings.write(state); err != nil {
		return err
	}
	if err := makePKI(state, settings); err != nil {
		return fmt.Errorf("cannot make certificates: %w", err)
	}
	if err := writeFiles(state, settings); err != nil {
		return err
	}
	image := &imageSpec{name: pauseImage, files: []imageFile{{"/pause", pause}}, entrypoint: []string{"/pause"}}
	if err := image.save(filepath.Join(state, "pause.tar")); err != nil {
		return fmt.Errorf("cannot make the pause image: %w", err)
	}
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(state, "logs"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(state, "logs", "node.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	child := exec.Command("/proc/self/exe", "node", state)
	child.Dir = "/"
	child.Env = environment()
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{goRead, reportWrite, api, registry}
	child.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC,
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	goRead.Close()
	reportWrite.Close()
	settings.Pid = child.Process.Pid
	if settings.Started, err = startTime(settings.Pid); err != nil {
		return err
	}
	if err := settings.write(state); err != nil {
		return err
	}
	if err := joinCgroups(settings); err != nil {
		return err
	}
	if err := connect(settings); err != nil {
		return err
	}
	// Closing says go.
	goWrite.Close()
	return follow(reportRead)
}

// follow passes on what the first process reports, until the cluster is ready.
func follow(report io.Reader) error {
	lines := bufio.NewScanner(report)
	for lines.Scan() {
		line := lines.Text()
		if line == "ready" {
			return nil
		}
		if reason, failed := strings.CutPrefix(line, "failed "); failed {
			rest, _ := io.ReadAll(report)
			return fmt.Errorf("%s\n%s", reason, rest)
		}
		fmt.Fprintln(os.Stderr, "    "+line)
	}
	return fmt.Errorf("the cluster's first process ended; see logs/node.log in its folder")
}

func listen(port int) (*os.File, int, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, 0, err
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	return file, listener.Addr().(*net.TCPAddr).Port, err
}

// claim makes the link of the first free index. Its other end moves into the cluster later.
func claim() (int, error) {
	for index := 0; index < 16; index++ {
		s := &Settings{Index: index}
		if _, err := os.Stat("/sys/class/net/" + s.link()); err == nil {
			continue
		}
		if routed(s) {
			continue
		}
		output, err := exec.Command("ip", "link", "add", s.link(), "type", "veth", "peer", "name", s.link()+"p").CombinedOutput()
		if err == nil {
			return index, nil
		}
		if !strings.Contains(string(output), "exists") {
			return 0, fmt.Errorf("cannot make a virtual link: %s", strings.TrimSpace(string(output)))
		}
	}
	return 0, fmt.Errorf("sixteen clusters run on this machine already, or its routes take their addresses")
}

// routed tells whether the machine uses the addresses otherwise.
func routed(s *Settings) bool {
	output, err := exec.Command("ip", "-4", "route", "show", "root", s.whole()).CombinedOutput()
	return err == nil && len(strings.TrimSpace(string(output))) > 0
}

// connect moves the other end of the link into the cluster, and routes its addresses there: pods and services answer
// on this machine as they do inside.
func connect(s *Settings) error {
	for _, command := range []string{
		fmt.Sprintf("ip link set %sp netns %d name eth0", s.link(), s.Pid),
		fmt.Sprintf("ip address add %s/30 dev %s", s.hostIP(), s.link()),
		fmt.Sprintf("ip link set %s up", s.link()),
		fmt.Sprintf("ip route add %s via %s", s.whole(), s.nodeIP()),
	} {
		words := strings.Fields(command)
		if output, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %s", command, strings.TrimSpace(string(output)))
		}
	}
	return nil
}

// startTime tells a process from a later one of the same number: field 22 of its stat.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("cannot read the start time of process %d", pid)
	}
	var ticks uint64
	_, err = fmt.Sscan(fields[19], &ticks)
	return ticks, err
}

// ask sends a line to the first process.
func ask(state, line string) (string, error) {
	folder, err := os.Open(state)
	if err != nil {
		return "", err
	}
	defer folder.Close()
	// The path of the folder may be longer than an address may be.
	connection, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", folder.Fd()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(connection, line+"\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(connection)
	if err == nil && strings.HasPrefix(string(answer), "error: ") {
		err = fmt.Errorf("%s", strings.TrimSpace(strings.TrimPrefix(string(answer), "error: ")))
	}
	return string(answer), err
}
