// Volumes of the local cluster: a folder of the node for each claim of the storage class.
//
// The provisioner inside kube-controller-manager makes volumes of type hostPath, which ignore a pod's fsGroup: a database
// that does not run as root could not write to them. Volumes of type local honour it. Claims may grow; nothing is enforced.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// The provisioner's name in the storage class.
const provisionedBy = "kalamdb.io/local"

type provisioner struct {
	client kubernetes.Interface
	class  string
	node   string
	root   string
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	class := flag.String("storage-class", "", "the class whose claims are served")
	node := flag.String("node", "", "the name of this node")
	root := flag.String("root", "", "the folder that holds the volumes")
	period := flag.Duration("period", 500*time.Millisecond, "how often claims are looked at")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatalf("failed to read %s: %v", *kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatalf("failed to make a client: %v", err)
	}
	p := provisioner{client: client, class: *class, node: *node, root: *root}
	// One node and a handful of claims: listing is simpler than watching, and misses nothing.
	for ; ; time.Sleep(*period) {
		if err := p.round(context.Background()); err != nil {
			log.Printf("failed to look at the claims: %v", err)
		}
	}
}

func (p *provisioner) round(ctx context.Context) error {
	claims, err := p.client.CoreV1().PersistentVolumeClaims("").List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	volumes, err := p.client.CoreV1().PersistentVolumes().List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	byName := map[string]*v1.PersistentVolume{}
	for i := range volumes.Items {
		byName[volumes.Items[i].Name] = &volumes.Items[i]
	}
	for i := range claims.Items {
		claim := &claims.Items[i]
		if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != p.class {
			continue
		}
		volume := byName["pvc-"+string(claim.UID)]
		if volume == nil && claim.Status.Phase == v1.ClaimPending {
			p.report("create the volume of", claim.Name, p.create(ctx, claim))
		} else if volume != nil && claim.Status.Phase == v1.ClaimBound {
			p.report("grow the volume of", claim.Name, p.grow(ctx, claim, volume))
		}
	}
	for _, volume := range byName {
		released := volume.Status.Phase == v1.VolumeReleased && volume.Spec.StorageClassName == p.class
		if released && volume.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete {
			p.report("delete the volume", volume.Name, p.remove(ctx, volume))
		}
	}
	return nil
}

func (p *provisioner) report(what, name string, err error) {
	if err != nil && !errors.IsConflict(err) && !errors.IsAlreadyExists(err) && !errors.IsNotFound(err) {
		log.Printf("failed to %s %s: %v", what, name, err)
	}
}

func (p *provisioner) create(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(path, 0o770); err != nil {
		return err
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{
		// Without this the controller manager looks for a plugin of its own to delete the volume, and calls it failed.
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisionedBy}},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			StorageClassName:              p.class,
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			ClaimRef: &v1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{
					Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{p.node},
				}},
			}}}},
		},
	}, meta.CreateOptions{})
	return err
}

func (p *provisioner) grow(ctx context.Context, claim *v1.PersistentVolumeClaim, volume *v1.PersistentVolume) error {
	wanted := claim.Spec.Resources.Requests[v1.ResourceStorage]
	if wanted.Cmp(volume.Spec.Capacity[v1.ResourceStorage]) > 0 {
		volume.Spec.Capacity[v1.ResourceStorage] = wanted
		if _, err := p.client.CoreV1().PersistentVolumes().Update(ctx, volume, meta.UpdateOptions{}); err != nil {
			return err
		}
	}
	if wanted.Cmp(claim.Status.Capacity[v1.ResourceStorage]) <= 0 {
		return nil
	}
	claim.Status.Capacity[v1.ResourceStorage] = wanted
	claim.Status.Conditions = nil
	_, err := p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, claim, meta.UpdateOptions{})
	return err
}

func (p *provisioner) remove(ctx context.Context, volume *v1.PersistentVolume) error {
	if err := os.RemoveAll(filepath.Join(p.root, volume.Name)); err != nil {
		return err
	}
	return p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
}
