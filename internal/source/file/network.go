package file

import (
	"errors"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

// passwordFile is a file with a peer's password, and what was found in it.
type passwordFile struct {
	path     string
	password model.Password
	err      error
}

// read reads a password file; a line break at its end, as editors leave it, is
// not the password's.
func (d decoder) read(path string) *passwordFile {
	if !filepath.IsAbs(path) {
		path = filepath.Join(d.dir, path)
	}
	path = filepath.Clean(path)
	data, directory, err := readFile(path)
	if err == nil && directory {
		err = errors.New(path + " is a directory")
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	return &passwordFile{path: path, password: model.Password(text), err: err}
}

// changed reports whether the file says something else now.
func (p *passwordFile) changed() bool {
	now := decoder{}.read(p.path)
	return now.password != p.password || (now.err == nil) != (p.err == nil)
}

func (d decoder) pool(js []byte) ([]*object, []mistake) {
	var p v1alpha1.AddressPool
	if m := strictly(js, &p, &p.ObjectMeta); m != nil {
		return nil, m
	}
	pool, ok, problems := convert.AddressPool(&p)
	return []*object{usable(model.AddressPoolKey{Name: p.Name}, pool, ok, problems)}, nil
}

func (d decoder) peer(js []byte) ([]*object, []mistake) {
	var p v1alpha1.BGPPeer
	if m := strictly(js, &p, &p.ObjectMeta); m != nil {
		return nil, m
	}
	var from *passwordFile
	peer, ok, problems := convert.Peer(&p, func(path string) (model.Password, error) {
		from = d.read(path)
		return from.password, from.err
	})
	o := usable(model.PeerKey{Name: p.Name}, peer, ok, problems)
	o.password = from
	return []*object{o}, nil
}

func (d decoder) advertisement(js []byte) ([]*object, []mistake) {
	var a v1alpha1.BGPAdvertisement
	if m := strictly(js, &a, &a.ObjectMeta); m != nil {
		return nil, m
	}
	ad, ok, problems := convert.Advertisement(&a)
	return []*object{usable(model.AdvertisementKey{Name: a.Name}, ad, ok, problems)}, nil
}

// usable makes an object of a kind that keeps what was told of it before when it
// cannot be used.
func usable(key, put any, ok bool, problems []model.Problem) *object {
	if !ok {
		return &object{key: key, keeps: true, problems: problems}
	}
	return &object{key: key, put: put, problems: problems}
}

// secret passes over what has no password to give. Of whatever namespace a
// Secret is, peers know it by its name.
func (d decoder) secret(js []byte) ([]*object, []mistake) {
	var s corev1.Secret
	if m := strictly(js, &s, &s.ObjectMeta); m != nil {
		return nil, m
	}
	namespaced(&s.ObjectMeta)
	secret, ok, problems := convert.Secret(&s)
	o := &object{key: model.SecretKey{Name: s.Name}, problems: problems}
	if ok {
		o.put = secret
	} else if len(problems) == 0 {
		d.log.Debug("Secret has no password", "secret", nameOf(&s.ObjectMeta).String())
		return nil, nil
	}
	return []*object{o}, nil
}

func (d decoder) namespace(js []byte) ([]*object, []mistake) {
	var n corev1.Namespace
	if m := strictly(js, &n, &n.ObjectMeta); m != nil {
		return nil, m
	}
	ns, _, problems := convert.Namespace(&n)
	return []*object{{key: model.NamespaceKey{Name: n.Name}, put: ns, problems: problems}}, nil
}
