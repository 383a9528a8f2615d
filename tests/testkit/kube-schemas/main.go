// Command kube-schemas writes JSON schemas for kubeconform, from Kubernetes' own OpenAPI document and from the definitions of
// custom resources: kubeconform would fetch such files from a host that not everybody reaches.
//
//	kube-schemas OUT SWAGGER.json CRD.yaml...
//
// The schemas are strict: a key that the API does not know is an error, where the API server would drop it.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: kube-schemas OUT SWAGGER.json CRD.yaml...")
	}
	out := os.Args[1]
	count, err := builtin(out, os.Args[2])
	for _, path := range os.Args[3:] {
		if err != nil {
			break
		}
		var more int
		more, err = custom(out, path)
		count += more
	}
	if err != nil {
		log.Fatal("kube-schemas: ", err)
	}
	fmt.Printf("%d schemas in %s\n", count, out)
}

// builtin writes a file for every kind of the OpenAPI document, with the definitions that it needs.
func builtin(out, path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var document struct{ Definitions map[string]object }
	if err := json.Unmarshal(text, &document); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	count := 0
	for _, definition := range document.Definitions {
		strict(definition)
	}
	for name, definition := range document.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		// Several kinds share one definition only for what is not a resource, such as DeleteOptions.
		if len(kinds) != 1 {
			continue
		}
		kind := kinds[0].(object)
		needed := object{}
		collect(document.Definitions, name, needed)
		schema := object{"$ref": "#/definitions/" + name, "definitions": needed}
		file := fileName(kind["kind"].(string), kind["group"].(string), kind["version"].(string))
		if err := write(filepath.Join(out, file), schema); err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}

// custom writes a file for every version of a custom resource.
func custom(out, path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var crd struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema object }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	for _, version := range crd.Spec.Versions {
		schema := version.Schema.OpenAPIV3Schema
		strict(schema)
		// A custom resource's own schema says nothing of metadata: the API server checks it.
		if properties, ok := schema["properties"].(object); ok {
			properties["metadata"] = object{"type": "object"}
		}
		if err := write(filepath.Join(out, fileName(crd.Spec.Names.Kind, crd.Spec.Group, version.Name)), schema); err != nil {
			return 0, err
		}
	}
	return len(crd.Spec.Versions), nil
}

// strict closes every object whose keys are known, and opens the two types that are written as a string or as a number.
func strict(node any) {
	switch node := node.(type) {
	case object:
		open, _ := node["x-kubernetes-preserve-unknown-fields"].(bool)
		_, properties := node["properties"].(object)
		_, additional := node["additionalProperties"]
		if properties && !additional && !open {
			node["additionalProperties"] = false
		}
		either, _ := node["x-kubernetes-int-or-string"].(bool)
		quantity, _ := node["description"].(string)
		if either || node["format"] == "int-or-string" || strings.HasPrefix(quantity, "Quantity is a fixed-point representation") {
			delete(node, "format")
			node["type"] = []any{"string", "number"}
		}
		for _, child := range node {
			strict(child)
		}
	case []any:
		for _, child := range node {
			strict(child)
		}
	}
}

// collect gathers a definition and all that it refers to.
func collect(all map[string]object, name string, into object) {
	if _, there := into[name]; there {
		return
	}
	into[name] = all[name]
	references(all[name], func(reference string) {
		collect(all, strings.TrimPrefix(reference, "#/definitions/"), into)
	})
}

func references(node any, found func(string)) {
	switch node := node.(type) {
	case object:
		if reference, ok := node["$ref"].(string); ok {
			found(reference)
		}
		for _, child := range node {
			references(child, found)
		}
	case []any:
		for _, child := range node {
			references(child, found)
		}
	}
}

// fileName is kubeconform's {{.ResourceKind}}{{.KindSuffix}}.json.
func fileName(kind, group, version string) string {
	parts := []string{kind}
	if group != "" {
		parts = append(parts, strings.Split(group, ".")[0])
	}
	return strings.ToLower(strings.Join(append(parts, version), "-")) + ".json"
}

func write(path string, schema object) error {
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
