package convert

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/model"
)

// PasswordKey is the key of a Secret under which its password stands.
const PasswordKey = corev1.BasicAuthPasswordKey

// Secret is a Secret's password. ok is false when it has none that can be used;
// only one that is meant to have a password, by its type or key, is blamed for
// that.
func Secret(s *corev1.Secret) (secret model.Secret, ok bool, problems []model.Problem) {
	r := newReport(SecretKind, &s.ObjectMeta)
	pw, given := passwordIn(s)
	if !given {
		if s.Type == corev1.SecretTypeBasicAuth {
			r.add(InvalidPassword, "data", "", "has no key "+PasswordKey, "add the password under this key")
		}
		return model.Secret{}, false, r.list()
	}
	if err := checkPassword(pw); err != nil {
		r.add(InvalidPassword, "data["+PasswordKey+"]", pw, "cannot be used: "+err.Error(), "correct it; echo adds a line break, printf does not")
		return model.Secret{}, false, r.list()
	}
	return model.Secret{Name: s.Name, Password: pw}, true, nil
}

// passwordIn finds the password. stringData, which an API server turns into data,
// counts more, as it does there.
func passwordIn(s *corev1.Secret) (model.Password, bool) {
	if text, given := s.StringData[PasswordKey]; given {
		return model.Password(text), true
	}
	data, given := s.Data[PasswordKey]
	return model.Password(data), given
}

// Namespace is a Namespace. It has the label that every namespace has with its
// name, as the API server sees to and a file need not. ok is always true; it is
// there so that all conversions look alike.
func Namespace(n *corev1.Namespace) (ns model.Namespace, ok bool, problems []model.Problem) {
	labels := make(map[string]string, len(n.Labels)+1)
	maps.Copy(labels, n.Labels)
	labels[corev1.LabelMetadataName] = n.Name
	return model.Namespace{Name: n.Name, Labels: labels}, true, nil
}
