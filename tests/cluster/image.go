package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"runtime"
	"sort"
	"strings"
	"time"
)

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// imageFile is a program in an image: path there, path here.
type imageFile struct{ to, from string }

// imageSpec is an image of static programs.
type imageSpec struct {
	name       string
	files      []imageFile
	links      []imageFile
	entrypoint []string
	command    []string
}

type blob struct {
	media string
	data  []byte
}

func (b blob) digest() string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b.data)) }
func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.media, "digest": b.digest(), "size": len(b.data)}
}

// image makes an OCI image of static programs; writes it as an archive, pushes it to a registry on plain HTTP, or both.
func image(arguments []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	spec := &imageSpec{}
	flags.StringVar(&spec.name, "name", "", "its name: HOST:PORT/REPOSITORY:TAG")
	archive := flags.String("save", "", "write an OCI archive here")
	push := flags.Bool("push", false, "push it to the registry in its name")
	list := func(name, usage string, to *[]imageFile) {
		flags.Func(name, usage, func(text string) error {
			path, target, found := strings.Cut(text, "=")
			if !found {
				return fmt.Errorf("expected PATH=%s", strings.ToUpper(name))
			}
			*to = append(*to, imageFile{path, target})
			return nil
		})
	}
	list("file", "PATH=FILE: a program and the file here that it is", &spec.files)
	list("link", "PATH=TARGET: a symbolic link", &spec.links)
	words := func(name string, to *[]string) {
		flags.Func(name, "its "+name+": words, divided by spaces", func(text string) error {
			*to = strings.Fields(text)
			return nil
		})
	}
	words("entrypoint", &spec.entrypoint)
	words("command", &spec.command)
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *archive != "" {
		if err := spec.save(*archive); err != nil {
			return err
		}
	}
	if *push {
		return spec.push()
	}
	return nil
}

// blobs are the layer, the configuration and the manifest.
func (spec *imageSpec) blobs() (layer, config, manifest blob, err error) {
	layer.media = layerType
	if layer.data, err = spec.layer(); err != nil {
		return
	}
	config = blob{configType, encode(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": spec.entrypoint, "Cmd": spec.command, "Env": []string{"PATH=/bin"}, "WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.digest()}},
	})}
	manifest = blob{manifestType, encode(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": config.descriptor(), "layers": []any{layer.descriptor()},
	})}
	return
}

func (spec *imageSpec) layer() ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	folders := map[string]bool{"tmp": true, "etc": true}
	for _, file := range append(append([]imageFile{}, spec.files...), spec.links...) {
		for folder := path.Dir(strings.TrimPrefix(file.to, "/")); folder != "."; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	names := make([]string, 0, len(folders))
	for name := range folders {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		mode := int64(0o755)
		if name == "tmp" {
			mode = 0o1777
		}
		if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}); err != nil {
			return nil, err
		}
	}
	for _, file := range spec.files {
		data, err := os.ReadFile(file.from)
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: strings.TrimPrefix(file.to, "/"), Mode: 0o755, Size: int64(len(data))}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(data); err != nil {
			return nil, err
		}
	}
	for _, link := range spec.links {
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(link.to, "/"), Linkname: link.from, Mode: 0o777}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	err := writer.Close()
	return buffer.Bytes(), err
}

// save writes an OCI archive that containerd imports under the image's name.
func (spec *imageSpec) save(to string) error {
	layer, config, manifest, err := spec.blobs()
	if err != nil {
		return err
	}
	descriptor := manifest.descriptor()
	descriptor["annotations"] = map[string]string{"io.containerd.image.name": spec.name}
	files := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": encode(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []any{descriptor}}),
	}
	for _, blob := range []blob{layer, config, manifest} {
		files["blobs/sha256/"+strings.TrimPrefix(blob.digest(), "sha256:")] = blob.data
	}
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for name, data := range files {
		if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := writer.Write(data); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return writeFile(to, buffer.String(), 0o644)
}

func (spec *imageSpec) push() error {
	host, rest, found := strings.Cut(spec.name, "/")
	colon := strings.LastIndexByte(rest, ':')
	if !found || colon < 0 {
		return fmt.Errorf("expected HOST:PORT/REPOSITORY:TAG, not %q", spec.name)
	}
	base := "http://" + host + "/v2/" + rest[:colon]
	layer, config, manifest, err := spec.blobs()
	if err != nil {
		return err
	}
	for _, blob := range []blob{layer, config} {
		answer, err := send(http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted)
		if err != nil {
			return err
		}
		where, err := answer.Location()
		if err != nil {
			return err
		}
		query := where.Query()
		query.Set("digest", blob.digest())
		where.RawQuery = query.Encode()
		if _, err := send(http.MethodPut, where.String(), "application/octet-stream", blob.data, http.StatusCreated); err != nil {
			return err
		}
	}
	_, err = send(http.MethodPut, base+"/manifests/"+url.PathEscape(rest[colon+1:]), manifestType, manifest.data, http.StatusCreated)
	return err
}

func send(method, to, media string, data []byte, expected int) (*http.Response, error) {
	request, err := http.NewRequest(method, to, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != expected {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, fmt.Errorf("%s %s: %s: %s", method, to, answer.Status, strings.TrimSpace(string(text)))
	}
	return answer, nil
}

func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		// Maps of strings and numbers always encode.
		panic(err)
	}
	return data
}
