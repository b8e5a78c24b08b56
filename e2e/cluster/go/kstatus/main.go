// Command kstatus reads one Kubernetes object as JSON or YAML on standard input and prints what kstatus,
// the library that GitOps tools wait with, makes of it: "<status>: <message>".
//
// Exit codes: 0 the object is Current, 1 it is in any other state, 2 the input could not be read.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func compute(input io.Reader) (*status.Result, error) {
	text, err := io.ReadAll(input)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("standard input is neither JSON nor YAML: %w", err)
	}
	// Unstructured's own decoder keeps whole numbers whole, as kstatus wants metadata.generation.
	object := unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asJSON); err != nil {
		return nil, fmt.Errorf("standard input is not a Kubernetes object: %w", err)
	}
	if object.GetKind() == "" {
		return nil, fmt.Errorf("the object on standard input has no kind: pass one object, as `kubectl get KIND NAME -o yaml` prints it")
	}
	result, err := status.Compute(&object)
	if err != nil {
		return nil, fmt.Errorf("compute the status of %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return result, nil
}

func main() {
	result, err := compute(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(2)
	}
	fmt.Printf("%s: %s\n", result.Status, result.Message)
	if result.Status != status.CurrentStatus {
		os.Exit(1)
	}
}
